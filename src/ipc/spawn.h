/*
 * Starting a role: the program anew, with an empty environment, the descriptors of the role's row
 * and nothing of who started it. Memory is shared only where both were given the same descriptor of
 * it.
 */
#pragma once

#include <sys/types.h>

#include "role.h"

/* Descriptors by grant; -1: there is none. errors: standard error; -1: that of who starts it. */
struct grants { int fd[GRANTS], errors; };

struct spawned { pid_t pid; int pidfd; };

void grants_clear(struct grants *grants);
/* Those of this process, at their numbers; before it opens anything. */
void grants_of_process(struct grants *ret);
/* This program, to be started anew; -errno. */
int spawn_open_program(void);
/* This process may have so many descriptors, or as many as the host permits it. */
void spawn_raise_descriptors(unsigned count);
/* Sealed memory with a copy of this; -errno. */
int spawn_seal(const char *name, const void *data, size_t bytes);
/* So many bytes of zeros with these parts, of which the last one has the highest place; -errno. */
struct spawn_part { const void *data; size_t at, bytes; };
int spawn_seal_parts(const char *name, const struct spawn_part *part, unsigned count, size_t bytes);
/* Memory of zeros that roles share, which nobody can make shorter; -errno. */
int spawn_share(const char *name, size_t bytes);
/* Whether it is such memory: who maps it cannot lose any of it. */
bool spawn_is_share(int fd, size_t bytes);
/*
 * A new process in the role; group: it enters this one first (group.h), -1: none. 0 or -errno.
 */
int spawn_role(enum role role, const struct grants *grants, int group, struct spawned *ret);
/* fork(), and a descriptor of the child in its parent; of one thread. -errno. */
pid_t spawn_fork(int *ret_pidfd);
/* This process goes on in the role, with its own pid. Returns only with -errno. */
int spawn_become(enum role role, const struct grants *grants);
/*
 * The same for one that goes on with the memory that it has: each descriptor at its number, and no
 * other. 0 or -errno.
 */
int spawn_go_on(enum role role, const struct grants *grants);
/*
 * It is called what another process of the role is, for who lists processes: in the place of its
 * arguments and its environment, which begin with what it was called, and are lost.
 */
void spawn_call_self(char *called, enum role role);
