/* See pass_fds.h. */
#include "pass_fds.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Its length is said without its padding, in which there may be room for one descriptor more. */
union control { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(PASSED_FDS_MOST * sizeof(int))]; };

bool pass_fds(int socket, const void *data, size_t bytes, const int *fds, unsigned count)
{
	union control control = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
					    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = bytes };
	const struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
					.msg_controllen = CMSG_SPACE(count * sizeof(int)) };

	assert(bytes && count && count <= PASSED_FDS_MOST);
	memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)bytes;
}

ssize_t take_fds(int socket, void *data, size_t bytes, int *fds, unsigned most,
		 unsigned *ret_count)
{
	union control control = { .bytes = { 0 } };
	struct iovec part = { .iov_base = data, .iov_len = bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = CMSG_LEN(most * sizeof(int)) };
	const struct cmsghdr *head;
	ssize_t got;

	assert(bytes && most && most <= PASSED_FDS_MOST);
	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	*ret_count = 0;
	head = got >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
		return got;
	*ret_count = (unsigned)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	assert(*ret_count <= most);
	memcpy(fds, CMSG_DATA(head), *ret_count * sizeof(int));
	return got;
}
