/* See hub_line.h. */
#include "hub_line.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int line_connect(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	strncpy(at.sun_path, path, sizeof(at.sun_path) - 1);
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

union control {
	struct cmsghdr head;
	uint8_t bytes[CMSG_SPACE(WIRE_FDS * sizeof(int))];
};

int line_send(int line, const struct wire_message *message, const int *fds, unsigned count)
{
	union control control = { .bytes = { 0 } };
	struct iovec part = { .iov_base = (void *)(uintptr_t)message,
			      .iov_len = sizeof(*message) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };

	if (count) {
		head.msg_control = &control;
		head.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS,
						 .cmsg_len = CMSG_LEN(count * sizeof(int)) };
		memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
	}
	return sendmsg(line, &head, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(*message) ? 0 : -errno;
}

/* The room for them is rounded up: there may be one more than WIRE_FDS. */
static void take_fds(const struct msghdr *head, int fds[WIRE_FDS])
{
	const struct cmsghdr *control = CMSG_FIRSTHDR(head);

	if (!control || control->cmsg_type != SCM_RIGHTS)
		return;
	for (size_t n = 0; n < (control->cmsg_len - CMSG_LEN(0)) / sizeof(int); n++) {
		int fd;

		memcpy(&fd, CMSG_DATA(control) + n * sizeof(fd), sizeof(fd));
		if (n < WIRE_FDS)
			fds[n] = fd;
		else
			close(fd);
	}
}

int line_receive(int line, struct wire_message *ret, int fds[WIRE_FDS], bool waits)
{
	union control control;
	struct iovec part = { .iov_base = ret, .iov_len = sizeof(*ret) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
			       .msg_controllen = sizeof(control) };
	ssize_t got;

	for (unsigned n = 0; n < WIRE_FDS; n++)
		fds[n] = -1;
	do
		got = recvmsg(line, &head, MSG_CMSG_CLOEXEC | (waits ? 0 : MSG_DONTWAIT));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (!got)
		return -EPIPE;
	take_fds(&head, fds);
	return got == sizeof(*ret) && ret->magic == WIRE_MAGIC ? 1 : -EBADMSG;
}
