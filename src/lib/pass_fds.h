/*
 * Descriptors that go with bytes over a socket between processes (SCM_RIGHTS).
 *
 * Left out: who says it (SCM_CREDENTIALS), and kits of many (ipc/forker.h, ipc/early.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PASSED_FDS_MOST = 4 };

/* At least one of each; they stay open here. False, errno: not all of it was taken. */
bool pass_fds(int socket, const void *data, size_t bytes, const int *fds, unsigned count);
/*
 * As recv() without flags, and waits over signals. fds: room for `most` descriptors, which are
 * closed by execve(); of those that have come, *ret_count. More than that the kernel closes.
 */
ssize_t take_fds(int socket, void *data, size_t bytes, int *fds, unsigned most,
		 unsigned *ret_count);
