/* See say.h. */
#include "say.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

int say_line(int peer, const char *line, const int *files, size_t count)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(SAY_MOST_FILES * sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(count * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(uintptr_t)line, .iov_len = strlen(line) };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = count ? &ancillary : NULL,
				  .msg_controllen = count ? CMSG_SPACE(count * sizeof(int)) : 0 };

	assert(count <= SAY_MOST_FILES);
	if (count)
		memcpy(CMSG_DATA(&ancillary.head), files, count * sizeof(*files));
	return sendmsg(peer, &message, MSG_NOSIGNAL) == (ssize_t)vector.iov_len ? 0 : -ECONNRESET;
}
