/*
 * See tap.h. A frame on a tap has a struct virtio_net_hdr before it, which is translated from and
 * to a struct net_frame.
 */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/port.h"

enum { FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

int tap_open(const char *name)
{
	struct ifreq request = { .ifr_flags = FLAGS };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int error;

	if (fd < 0)
		return -errno;
	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (!ioctl(fd, TUNSETIFF, &request))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

bool tap_is_one(int fd)
{
	struct ifreq request = { .ifr_flags = 0 };

	return !ioctl(fd, TUNGETIFF, &request) && request.ifr_flags & IFF_TAP &&
	       request.ifr_flags & IFF_NO_PI && request.ifr_flags & IFF_VNET_HDR;
}

int tap_begin(int fd)
{
	const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
	int head_bytes = sizeof(struct virtio_net_hdr);
	int flags = fcntl(fd, F_GETFL);

	if (ioctl(fd, TUNSETVNETHDRSZ, &head_bytes))
		return -errno;
	ioctl(fd, TUNSETOFFLOAD, offloads); /* a kernel without: it cuts and sums itself */
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static void to_tap(const struct net_frame *frame, struct virtio_net_hdr *ret)
{
	*ret = (struct virtio_net_hdr){ .flags = 0 };
	if (frame->flags & NET_CHECKSUM_MISSING) {
		ret->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		ret->csum_start = frame->checksum_at;
		ret->csum_offset = frame->checksum_offset;
	}
	if (!(frame->flags & NET_LARGE))
		return;
	ret->gso_type =
		frame->flags & NET_IPV4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	ret->gso_size = frame->mss;
	ret->hdr_len = (uint16_t)(frame->checksum_at + 20);
}

static void from_tap(const struct virtio_net_hdr *head, uint32_t bytes, struct net_frame *ret)
{
	const int gso = head->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

	*ret = (struct net_frame){ .bytes = bytes };
	if (head->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		ret->flags |= NET_CHECKSUM_MISSING;
		ret->flags |= head->csum_offset == 6 ? NET_UDP : NET_TCP;
		ret->checksum_at = head->csum_start;
		ret->checksum_offset = head->csum_offset;
	}
	if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6) {
		ret->flags |= NET_LARGE | NET_TCP;
		ret->flags |= gso == VIRTIO_NET_HDR_GSO_TCPV4 ? NET_IPV4 : NET_IPV6;
		ret->mss = head->gso_size;
	}
}

/* 0 or -EBADMSG. A tap that does not take a frame loses it, as a network may. */
static int take_frames(struct net_port *port, int fd)
{
	struct net_sent sent;
	int got;

	while ((got = net_port_take(port, &sent)) > 0) {
		struct virtio_net_hdr head;
		const struct iovec parts[] = { { .iov_base = &head, .iov_len = sizeof(head) },
					       { .iov_base = sent.data,
						 .iov_len = sent.frame.bytes } };
		ssize_t written;

		to_tap(&sent.frame, &head);
		written = writev(fd, parts, 2);
		(void)written;
		net_port_sent(port, &sent);
	}
	return got;
}

/* False: the tap is gone. */
static bool give_frames(struct net_port *port, int fd)
{
	while (net_port_room(port)) {
		struct virtio_net_hdr head;
		const struct iovec parts[] = { { .iov_base = &head, .iov_len = sizeof(head) },
					       { .iov_base = net_port_next(port),
						 .iov_len = NET_FRAME_BYTES } };
		struct net_frame frame;
		ssize_t got = readv(fd, parts, 2);

		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		from_tap(&head, (uint32_t)got - (uint32_t)sizeof(head), &frame);
		if (got > (ssize_t)sizeof(head) && net_frame_is_sound(&frame))
			net_port_put_next(port, &frame);
	}
	return true;
}

int tap_serve(struct net_port *port, int tap_fd, int end_fd)
{
	struct pollfd polls[3] = { { .fd = port->slots.doorbell_fd, .events = POLLIN },
				   { .fd = end_fd, .events = POLLIN } };
	struct brief_wait brief = { 0 };

	while (!polls[1].revents) {
		int error = take_frames(port, tap_fd);

		if (error)
			return error;
		if (!give_frames(port, tap_fd))
			return -EIO;
		net_port_tell(port);
		polls[2] = (struct pollfd){ .fd = net_port_room(port) ? tap_fd : -1,
					    .events = POLLIN };
		if (poll(polls, 3, net_port_looks_again(port, &brief) ? 0 : -1) > 0)
			brief_wait_found(&brief);
		slot_server_wakes(&port->slots, polls[0].revents);
	}
	return 0;
}
