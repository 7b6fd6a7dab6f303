/* Where processes of a user's machines meet: one that outlives who started it listens there. */
#pragma once

#include "ipc/role.h"

/*
 * Where nobody listens at path (SOCK_SEQPACKET) a process of this role is started that does, from
 * this program; of two that find none one starts it. 0 or -errno.
 */
int meeting_start(const char *path, enum role role, int program_fd);
/* The folder that such a place is in, or another file; it is the caller's to close. -errno */
int meeting_folder(const char *path);
