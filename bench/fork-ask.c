/*
 * What bench/fork asks a broker by: the time, the request and the wait for an answer one behind the
 * other, with nothing of an interpreter in between, which would keep the processor on which the
 * broker was woken.
 */
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <x86intrin.h>

enum { FDS_MOST = 128, WAIT_MS = 1000 };

uint64_t fork_ask(int peer, const char *line, const int *fds, unsigned count, int event);

/* When it was asked, by the TSC; 0: it could not. event: what is readable once there is news. */
uint64_t fork_ask(int peer, const char *line, const int *fds, unsigned count, int event)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_MOST * sizeof(int))] = { 0 };
	struct iovec vector = { .iov_base = (void *)line, .iov_len = strlen(line) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	struct pollfd news = { .fd = event, .events = POLLIN };
	struct cmsghdr *rights;
	uint64_t asked;

	if (!count || count > FDS_MOST)
		return 0;
	message.msg_control = control;
	message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	rights = CMSG_FIRSTHDR(&message);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
	asked = __rdtsc();
	if (sendmsg(peer, &message, 0) < 0)
		return 0;
	poll(&news, 1, WAIT_MS);
	return asked;
}
