/*
 * A second process of a role that starts others again: it stands by, and serves when the first ends
 * while the machine goes on. So nobody whose end would be noticed by nobody is needed.
 *
 *   serves ---makes---> stands by: waits for the end of the first, or of the machine
 *     |                    |
 *     ends                 is the role anew (execve), without GRANT_READY; makes one that stands by
 *
 *  1. One that stands by holds what the first was given, and does nothing with it.
 *  2. When it ends the first makes another.
 *  3. While there is one there is a descriptor that tells its end, and the pipe that tells it of
 *     the first one's; while there is none there is no such descriptor.
 *  4. It is not killed with its parent, as the role may be: it ends when GRANT_END is closed.
 */
#pragma once

#include "ipc/spawn.h"

struct plan;

struct standby {
	enum role role;
	const struct plan *plan;
	const struct grants *grants; /* as the role was given them */
	pid_t pid;                   /* 0: there is none */
	int pidfd;                   /* readable once it has ended: standby_keep(); -1 */
	bool has_pipe;
	int pipe[2]; /* [1] is the first one's alone: closed with it, which [0] tells */
};

/* Makes one that stands by if there is none, or it has ended. One that cannot be made is not. */
void standby_keep(struct standby *standby);
void check_standby(const struct standby *standby);
