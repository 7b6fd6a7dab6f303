/* See standby.h. */
#include "standby.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/check.h"
#include "plan.h"

/* In the one that stands by. */
static void succeed(const struct standby *standby)
{
	struct grants grants = *standby->grants;

	grants.fd[GRANT_READY] = -1; /* its predecessor has told that it serves */
	grants.fd[GRANT_PLAN] = plan_seal(standby->plan, standby->role);
	if (grants.fd[GRANT_PLAN] >= 0)
		spawn_become(standby->role, &grants);
	_exit(EXIT_FAILURE);
}

/* What the first has opened since stays with it alone: its other end tells when it ends. */
static void leave_all_but(const struct grants *grants, int *fd)
{
	const int kept = dup2(*fd, grant_fd(GRANTS));

	for (unsigned n = 0; n < GRANTS; n++)
		if (grants->fd[n] < 0 || n == GRANT_PLAN || n == GRANT_READY)
			close(grant_fd((enum grant)n)); /* the number may be another's by now */
	syscall(SYS_close_range, kept + 1, ~0u, 0);
	*fd = kept;
}

static void stand_by(const struct standby *standby, int first_ends)
{
	struct pollfd ends[] = { { .fd = grant_fd(GRANT_END), .events = POLLIN },
				 { .events = POLLIN } };

	close(standby->pipe[1]);
	leave_all_but(standby->grants, &first_ends);
	ends[1].fd = first_ends;
	while (poll(ends, 2, -1) < 0 && errno == EINTR)
		;
	if (ends[0].revents)
		_exit(EXIT_SUCCESS);
	close(first_ends);
	succeed(standby);
}

static bool has_ended(const struct standby *standby)
{
	struct pollfd end = { .fd = standby->pidfd, .events = POLLIN };

	return poll(&end, 1, 0) == 1;
}

void check_standby(const struct standby *standby)
{
	assert(standby->role < ROLES && standby->grants);
	assert(standby->pid >= 0 && !standby->pid == (standby->pidfd < 0));
	assert(!standby->pid || standby->has_pipe);
}

void standby_keep(struct standby *standby)
{
	if (standby->pid && !has_ended(standby))
		return;
	if (standby->pid) {
		close(standby->pidfd);
		waitpid(standby->pid, NULL, 0);
		standby->pid = 0;
	}
	standby->pidfd = -1;
	if (!standby->has_pipe && pipe2(standby->pipe, O_CLOEXEC))
		return;
	standby->has_pipe = true;
	standby->pid = spawn_fork(&standby->pidfd);
	if (!standby->pid)
		stand_by(standby, standby->pipe[0]);
	if (standby->pid < 0) {
		standby->pid = 0;
		standby->pidfd = -1;
	}
	CHECK(check_standby(standby));
}
