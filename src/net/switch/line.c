/* See switch.h: a net process's end of a line. A frame is one message, as it is in its slot. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/port.h"
#include "switch.h"

enum { BUFFER_BYTES = 4 << 20, JOIN_S = 5, TURNS = 64 };

int line_open(const char *path, const uint8_t mac[NET_MAC_BYTES])
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct switch_hello hello = { .magic = SWITCH_MAGIC, .version = SWITCH_VERSION };
	const struct timeval most = { .tv_sec = JOIN_S };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	memcpy(hello.mac, mac, NET_MAC_BYTES);
	strncpy(at.sun_path, path, sizeof(at.sun_path) - 1);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ BUFFER_BYTES }, sizeof(int));
	/* a switch that lets nobody in costs no more than that */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)) &&
	    send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* 1: it is gone; 0: it has to wait; -errno: the line is cut. */
static int send_frame(int fd, const struct net_sent *sent)
{
	struct net_frame frame = sent->frame;
	struct iovec parts[] = { { .iov_base = &frame, .iov_len = sizeof(frame) },
				 { .iov_base = sent->data, .iov_len = frame.bytes } };
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 1;
	return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
}

/* True: *waits is one that has to. -errno. */
static int take_frames(struct net_port *port, int fd, struct net_sent *waits, bool *is_waiting)
{
	int got = *is_waiting ? 1 : net_port_take(port, waits);

	for (; got > 0; got = net_port_take(port, waits)) {
		int sent = send_frame(fd, waits);

		*is_waiting = !sent;
		if (sent <= 0)
			return sent;
		net_port_sent(port, waits);
	}
	return got;
}

/* 0, or -errno: the line is cut. */
static int give_frames(struct net_port *port, int fd)
{
	while (net_port_room(port)) {
		struct net_frame frame;
		struct iovec parts[] = { { .iov_base = &frame, .iov_len = sizeof(frame) },
					 { .iov_base = net_port_next(port),
					   .iov_len = NET_FRAME_BYTES } };
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);

		if (got < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (!got)
			return -EPIPE;
		if ((size_t)got < sizeof(frame) || (size_t)got - sizeof(frame) != frame.bytes ||
		    !net_frame_is_sound(&frame))
			return -EBADMSG;
		net_port_put_next(port, &frame);
	}
	return 0;
}

/* Changes with each frame. */
static uint32_t moved(const struct net_port *port)
{
	return port->slots.taken + port->slots.answered;
}

int line_serve(struct net_port *port, int line_fd, int end_fd)
{
	struct pollfd polls[3] = { { .fd = port->slots.doorbell_fd, .events = POLLIN },
				   { .fd = end_fd, .events = POLLIN } };
	struct net_sent sent;
	bool is_waiting = false;
	unsigned turns = 0;
	struct brief_wait brief = { 0 };

	while (!polls[1].revents) {
		const uint32_t before = moved(port);
		int error = take_frames(port, line_fd, &sent, &is_waiting);
		bool looks;

		if (!error)
			error = give_frames(port, line_fd);
		if (error)
			return error;
		net_port_tell(port);
		/* a look at the end of it once in a while is enough */
		if (!is_waiting && moved(port) != before && ++turns % TURNS)
			continue;
		polls[2] = (struct pollfd){ .fd = line_fd };
		if (net_port_room(port))
			polls[2].events |= POLLIN;
		if (is_waiting)
			polls[2].events |= POLLOUT;
		looks = !is_waiting && net_port_looks_again(port, &brief);
		if (poll(polls, 3, looks ? 0 : -1) > 0)
			brief_wait_found(&brief);
		slot_server_wakes(&port->slots, polls[0].revents);
	}
	return 0;
}
