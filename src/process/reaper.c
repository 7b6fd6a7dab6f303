/* See reaper.h. */
#include "reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "ipc/role.h"

/* Both behind what this process was given; nothing else, not even standard error. */
static void leave_all_but(int *fd, int *other_fd)
{
	const int first = grant_fd(GRANTS);
	const int up = fcntl(*fd, F_DUPFD, first + 2);
	const int other_up = fcntl(*other_fd, F_DUPFD, first + 2);

	if (dup2(up, first) < 0 || dup2(other_up, first + 1) < 0)
		_exit(EXIT_FAILURE);
	syscall(SYS_close_range, 0, first - 1, 0);
	syscall(SYS_close_range, first + 2, ~0u, 0);
	*fd = first;
	*other_fd = first + 1;
}

static void wait_for(struct pollfd *polls, nfds_t count, int timeout_ms)
{
	while (poll(polls, count, timeout_ms) < 0 && errno == EINTR)
		;
}

static void reap(int end_fd, int pidfd, int patience_ms)
{
	struct pollfd ends[] = { { .events = POLLIN }, { .events = POLLIN } };

	leave_all_but(&end_fd, &pidfd);
	if (lockdown_capabilities())
		_exit(EXIT_FAILURE);
	ends[0].fd = pidfd;
	ends[1].fd = end_fd;
	wait_for(ends, 2, -1);
	if (!ends[0].revents)
		wait_for(ends, 1, patience_ms);
	if (!ends[0].revents)
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	_exit(EXIT_SUCCESS);
}

int reaper_make(int end_fd, int patience_ms)
{
	const int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	pid_t child = self < 0 ? -1 : fork();
	int error = child < 0 ? -errno : 0;

	if (!child)
		reap(end_fd, self, patience_ms);
	if (self >= 0)
		close(self);
	return error;
}
