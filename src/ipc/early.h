/*
 * A role that begins before it is known what for: its program is loaded, it has given up what it
 * needs not to be told for, and waits for its descriptors. So who has to start a machine at once
 * (process/spare.h) does not wait for programs to load. It is a process of its own like any other,
 * with memory of its own; it becomes one machine's, or ends with who began it.
 *
 *   who begins it                          the process, at GRANT_EARLY
 *   early_begin()                          early_take() in its main, before its plan is read
 *   early_give(): a set, descriptors  -->  each at its number; the line is closed
 *
 * Who is begun by umbra run is that broker's child, which becomes its broker (early_adopt()).
 *
 * What it is given, and by whom, is believed as what execve leaves open is.
 */
#pragma once

#include "spawn.h"

/* line: -1: there is none, or it has been given what it needs. */
struct early { struct spawned process; int line; };

/* Of grants it is given nothing yet but GRANT_PROGRAM, if its row has that. 0 or -errno. */
int early_begin(enum role role, const struct grants *grants, struct early *ret);
/* A line for one that is started by other means: its end is *ret_there. 0 or -errno. */
int early_make_line(struct early *early, int *ret_there);
/*
 * One that this process has begun before it became what it is: its line is this grant, which is
 * free then. 0; -errno: it is as if it had not been begun.
 */
int early_adopt(enum grant grant, pid_t process, struct early *ret);
/* What its row has of these, and standard error if it has that. -EPIPE: it has ended; -errno. */
int early_give(struct early *early, enum role role, const struct grants *grants);
/* One that nobody needs ends. */
void early_end(struct early *early);
/*
 * Of this process, of one thread: however it was begun, its descriptors are there. 0; -ESRCH:
 * who began it is gone, and it is to end; -errno.
 */
int early_take(void);
