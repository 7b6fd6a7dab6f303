/*
 * The connections that are led to daemons now, each a process of its user's.
 *
 *  1. So many of all, and of a user, and no more.
 *  2. None is of nobody, and each has a process of its own.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { CONNECTIONS = 512, CONNECTIONS_OF_ONE = 128, NOBODY = 65534 };

struct connection { pid_t process; uid_t user; };

struct connections { unsigned count; struct connection connection[CONNECTIONS]; };

/* Whether there is room for one more of this user's. */
bool connections_admit(const struct connections *connections, uid_t user);
/* One that was admitted. */
void connections_add(struct connections *connections, pid_t process, uid_t user);
/* Its process has ended; that of no connection is none. */
void connections_forget(struct connections *connections, pid_t process);
/* Invariants 1 and 2. */
void check_connections(const struct connections *connections);
