/* See early.h. */
#include "early.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where descriptors lie meanwhile: no grant is there, and nothing of a broker's (role.h). */
enum { ABOVE_FD = 96, MOST_FDS = 128 };
static_assert((int)GRANT_FIRST_FD + (int)GRANTS <= (int)ABOVE_FD, "no grant lies there");
static_assert((int)GRANTS < (int)MOST_FDS, "there is room for all");

/* Which descriptors follow, in their order; the last one may be standard error. */
struct gift { grant_set has; uint32_t has_errors; };
union gift_room { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(MOST_FDS * sizeof(int))]; };

static int move_up(int fd)
{
	const int up = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_FD);
	const int error = -errno;

	close(fd);
	return up < 0 ? error : up;
}

int early_make_line(struct early *early, int *ret_there)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	early->line = move_up(pair[0]);
	*ret_there = move_up(pair[1]);
	if (early->line >= 0 && *ret_there >= 0)
		return 0;
	close(early->line);
	close(*ret_there);
	early->line = -1;
	return -EMFILE;
}

int early_begin(enum role role, const struct grants *grants, struct early *ret)
{
	struct grants first;
	int there;
	int error = early_make_line(ret, &there);

	if (error)
		return error;
	grants_clear(&first);
	first.fd[GRANT_EARLY] = there;
	first.fd[GRANT_PROGRAM] = grants->fd[GRANT_PROGRAM];
	first.errors = grants->errors;
	error = spawn_role(role, &first, -1, &ret->process);
	close(there);
	if (!error)
		ret->process.pidfd = move_up(ret->process.pidfd);
	if (!error && ret->process.pidfd < 0)
		error = ret->process.pidfd;
	if (error)
		early_end(ret);
	return error;
}

int early_adopt(enum grant grant, pid_t process, struct early *ret)
{
	ret->line = move_up(grant_fd(grant));
	if (ret->line < 0)
		return ret->line;
	ret->process.pid = process;
	ret->process.pidfd = move_up((int)syscall(SYS_pidfd_open, process, 0));
	if (ret->process.pidfd >= 0)
		return 0;
	early_end(ret);
	return -ESRCH;
}

void early_end(struct early *early)
{
	if (early->line >= 0)
		close(early->line);
	early->line = -1;
}

/* ---- what it is given ---- */

static unsigned collect(enum role role, const struct grants *grants, struct gift *gift, int *fds)
{
	const grant_set row = role_describe(role)->grants & ~GRANT(GRANT_EARLY);
	unsigned count = 0;

	for (unsigned n = 0; n < GRANTS; n++)
		if (row & GRANT(n) && grants->fd[n] >= 0) {
			gift->has |= GRANT(n);
			fds[count++] = grants->fd[n];
		}
	gift->has_errors = role_describe(role)->stdio && grants->errors >= 0;
	if (gift->has_errors)
		fds[count++] = grants->errors;
	return count;
}

int early_give(struct early *early, enum role role, const struct grants *grants)
{
	int fds[MOST_FDS];
	struct gift gift;
	union gift_room room;
	struct iovec part = { .iov_base = &gift, .iov_len = sizeof(gift) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &room };
	unsigned count;
	ssize_t sent;

	assert(early->line >= 0);
	memset(&gift, 0, sizeof(gift));
	memset(&room, 0, sizeof(room));
	count = collect(role, grants, &gift, fds);
	message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	room.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(count * sizeof(int)),
				      .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(&room.head), fds, count * sizeof(int));
	sent = sendmsg(early->line, &message, MSG_NOSIGNAL);
	early_end(early);
	return sent == sizeof(gift) ? 0 : -EPIPE;
}

/* ---- in the process that takes it ---- */

/* Those that have come, and how many: above all numbers that they are to have. */
static int receive(struct gift *gift, int fds[MOST_FDS], unsigned *ret_count)
{
	union gift_room room;
	struct iovec part = { .iov_base = gift, .iov_len = sizeof(*gift) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &room,
				  .msg_controllen = sizeof(room) };
	ssize_t got;

	do
		got = recvmsg(grant_fd(GRANT_EARLY), &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got != sizeof(*gift) || !CMSG_FIRSTHDR(&message))
		return -ESRCH;
	*ret_count = (unsigned)((room.head.cmsg_len - CMSG_LEN(0)) / sizeof(int));
	if (*ret_count > MOST_FDS || message.msg_flags & MSG_CTRUNC)
		return -EPROTO;
	memcpy(fds, CMSG_DATA(&room.head), *ret_count * sizeof(int));
	for (unsigned n = 0; n < *ret_count; n++)
		fds[n] = move_up(fds[n]);
	return 0;
}

static int put_at(int from, int to)
{
	if (from < 0 || dup2(from, to) < 0)
		return -EMFILE;
	close(from);
	return 0;
}

int early_take(void)
{
	struct gift gift;
	int fds[MOST_FDS];
	unsigned count;
	unsigned next = 0;
	int error;

	if (!role_was_given(GRANT_EARLY))
		return 0;
	error = receive(&gift, fds, &count);
	for (unsigned n = 0; n < GRANTS && !error; n++)
		if (gift.has & GRANT(n))
			error = next < count ? put_at(fds[next++], grant_fd((enum grant)n))
					     : -EPROTO;
	if (!error && gift.has_errors)
		error = next < count ? put_at(fds[next++], STDERR_FILENO) : -EPROTO;
	close(grant_fd(GRANT_EARLY));
	return error;
}
