/*
 * See user.h. One thread: frames of the guest's into libslirp, which calls back with frames for the
 * guest; its sockets are polled, with the doorbell.
 *
 *   - A frame for the guest that finds no empty slot waits (waiting.h); while some wait, nothing is
 *     read from sockets, so that who sends learns to stop.
 *   - TCP segments for the guest are as long as an IP packet may be: the guest's own maximum is
 *     taken out of its SYN and goes with the frame, for who cuts it.
 *   - The guest's frames have checksums when libslirp gets them: it looks.
 *   - libslirp would lead the guest to the host's loopback: guard.h keeps it from there.
 */
#include "user.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "frame.h"
#include "guard.h"
#include "net/port.h"
#include "slirp.h"
#include "waiting.h"

enum {
	MTU = 1500,
	SLIRP_MTU = 65521,
	RAISED_MSS = SLIRP_MTU - 40,
	DEFAULT_MSS = MTU - 40,
	LEAST_MSS = 64,
	ROOM_TO_READ = 8,
	POLLS_OWN = 2,
	NS_PER_MS = 1000000,
};

/* 10.0.2.0/24 */
#define NETWORK 0x0a000200u
#define MASK 0xffffff00u
#define GATEWAY 0x0a000202u
#define NAME_SERVER 0x0a000203u
#define GUEST 0x0a00020fu

struct timer {
	SlirpTimerId id;
	void *context;
	int64_t expire_ms;
};

struct user_net {
	struct net_port *port;
	Slirp *slirp;
	bool host_loopback;
	uint16_t mss;
	struct waiting waiting;
	struct pollfd *polls;
	unsigned polls_used, polls_room;
	struct timer timer[SLIRP_TIMER_NUM];
	bool may_read;
	struct brief_wait brief;
	struct loopback_guard guard;
	uint8_t frame[NET_FRAME_BYTES];
};

/* ---- frames for the guest ---- */

static void describe(const struct user_net *net, const uint8_t *data, uint32_t bytes,
		     struct net_frame *ret)
{
	*ret = (struct net_frame){ .bytes = bytes, .flags = frame_flags(data, bytes) };
	if (ret->flags)
		ret->flags |= NET_CHECKSUM_GOOD;
	if (ret->flags & NET_TCP && bytes > (uint32_t)net->mss + 40 + NET_HEAD_BYTES) {
		ret->flags |= NET_LARGE;
		ret->mss = net->mss;
		ret->checksum_at = (uint16_t)frame_find_tcp(data, bytes);
	}
	if (!net_frame_is_sound(ret))
		ret->flags = 0;
}

static void put_waiting(struct user_net *net)
{
	const struct waiting_frame *one;

	while ((one = net->waiting.first) && net_port_room(net->port)) {
		net_port_put(net->port, &one->frame, one->data);
		waiting_drop(&net->waiting);
	}
}

static ssize_t send_packet(const void *data, size_t bytes, void *context)
{
	struct user_net *net = context;
	struct net_frame frame;

	if (bytes < NET_HEAD_BYTES || bytes > NET_FRAME_BYTES)
		return (ssize_t)bytes;
	guard_note(&net->guard, data, (uint32_t)bytes);
	describe(net, data, (uint32_t)bytes, &frame);
	if (net->waiting.first || !net_port_room(net->port))
		waiting_add(&net->waiting, &frame, data);
	else
		net_port_put(net->port, &frame, data);
	return (ssize_t)bytes;
}

/* ---- frames of the guest's ---- */

static void take_frame(struct user_net *net, const struct net_sent *sent)
{
	const uint32_t bytes = sent->frame.bytes;
	uint16_t mss;

	/* what is looked at is this copy: the slot may change */
	memcpy(net->frame, sent->data, bytes);
	if (!net->host_loopback && !guard_lets_pass(&net->guard, net->frame, bytes))
		return;
	if (sent->frame.flags & NET_CHECKSUM_MISSING)
		net_frame_complete_checksum(&sent->frame, net->frame);
	mss = frame_raise_mss(net->frame, bytes, RAISED_MSS);
	if (mss)
		net->mss = mss > LEAST_MSS ? mss : LEAST_MSS;
	slirp_input(net->slirp, net->frame, (int)bytes);
}

/* 0 or -EBADMSG. */
static int take_frames(struct user_net *net)
{
	struct net_sent sent;
	int got;

	while ((got = net_port_take(net->port, &sent)) > 0) {
		take_frame(net, &sent);
		net_port_sent(net->port, &sent);
	}
	return got;
}

/* ---- what libslirp asks for ---- */

static int64_t clock_ns(void *context)
{
	struct timespec now;

	(void)context;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void guest_error(const char *text, void *context)
{
	(void)text;
	(void)context;
}

static void *timer_new(SlirpTimerId id, void *timer_context, void *context)
{
	struct user_net *net = context;

	assert(id < SLIRP_TIMER_NUM);
	net->timer[id] = (struct timer){ .id = id, .context = timer_context };
	return &net->timer[id];
}

static void timer_free(void *timer, void *context)
{
	(void)context;
	((struct timer *)timer)->expire_ms = 0;
}

static void timer_modify(void *timer, int64_t expire_ms, void *context)
{
	(void)context;
	((struct timer *)timer)->expire_ms = expire_ms;
}

static void take_fd(int fd, void *context)
{
	(void)fd;
	(void)context;
}

static void be_woken(void *context) { (void)context; }

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_ns,
	.timer_new_opaque = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_modify,
	.register_poll_fd = take_fd,
	.unregister_poll_fd = take_fd,
	.notify = be_woken,
};

/* ---- waiting ---- */

static short poll_events(const struct user_net *net, int events)
{
	short ret = 0;

	if (events & SLIRP_POLL_IN && net->may_read)
		ret |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		ret |= POLLOUT;
	if (events & SLIRP_POLL_PRI && net->may_read)
		ret |= POLLPRI;
	return ret;
}

static int poll_add(int fd, int events, void *context)
{
	struct user_net *net = context;
	struct pollfd *more;

	if (net->polls_used == net->polls_room) {
		more = realloc(net->polls, 2 * net->polls_room * sizeof(*more));
		if (!more)
			return -1;
		net->polls = more;
		net->polls_room *= 2;
	}
	net->polls[net->polls_used] =
		(struct pollfd){ .fd = fd, .events = poll_events(net, events) };
	return (int)net->polls_used++;
}

static int poll_result(int index, void *context)
{
	const struct user_net *net = context;
	const short events = index < 0 ? 0 : net->polls[index].revents;
	int ret = 0;

	ret |= events & POLLIN ? SLIRP_POLL_IN : 0;
	ret |= events & POLLOUT ? SLIRP_POLL_OUT : 0;
	ret |= events & POLLPRI ? SLIRP_POLL_PRI : 0;
	ret |= events & POLLERR ? SLIRP_POLL_ERR : 0;
	ret |= events & POLLHUP ? SLIRP_POLL_HUP : 0;
	return ret;
}

static void run_timers(struct user_net *net)
{
	const int64_t now_ms = clock_ns(NULL) / NS_PER_MS;

	for (unsigned n = 0; n < SLIRP_TIMER_NUM; n++) {
		struct timer *timer = &net->timer[n];

		if (!timer->expire_ms || timer->expire_ms > now_ms)
			continue;
		timer->expire_ms = 0;
		slirp_handle_timer(net->slirp, timer->id, timer->context);
	}
}

static int timeout_ms(const struct user_net *net, uint32_t slirp_ms)
{
	const int64_t now_ms = clock_ns(NULL) / NS_PER_MS;
	int64_t least_ms = slirp_ms == UINT32_MAX ? -1 : (int64_t)slirp_ms;

	for (unsigned n = 0; n < SLIRP_TIMER_NUM; n++) {
		int64_t left_ms = net->timer[n].expire_ms - now_ms;

		if (!net->timer[n].expire_ms)
			continue;
		if (left_ms < 0)
			left_ms = 0;
		if (least_ms < 0 || left_ms < least_ms)
			least_ms = left_ms;
	}
	return (int)least_ms;
}

static void wait_and_serve(struct user_net *net, int end_fd)
{
	uint32_t slirp_ms = UINT32_MAX;
	bool looks;
	int got;

	net->may_read = !net->waiting.first && net_port_room(net->port) >= ROOM_TO_READ;
	net->polls[0] = (struct pollfd){ .fd = net->port->slots.doorbell_fd, .events = POLLIN };
	net->polls[1] = (struct pollfd){ .fd = end_fd, .events = POLLIN };
	net->polls_used = POLLS_OWN;
	slirp_pollfds_fill(net->slirp, &slirp_ms, poll_add, net);
	looks = net_port_looks_again(net->port, &net->brief);
	got = poll(net->polls, net->polls_used, looks ? 0 : timeout_ms(net, slirp_ms));
	if (got > 0)
		brief_wait_found(&net->brief);
	slot_server_wakes(&net->port->slots, got > 0 && net->polls[0].revents);
	slirp_pollfds_poll(net->slirp, got < 0, poll_result, net);
	run_timers(net);
}

int user_net_serve(struct user_net *net, int end_fd)
{
	net->polls[1].revents = 0;
	while (!net->polls[1].revents) {
		int error = take_frames(net);

		if (error)
			return error;
		put_waiting(net);
		net_port_tell(net->port);
		wait_and_serve(net, end_fd);
		net_port_tell(net->port);
	}
	return 0;
}

/* ---- beginning ---- */

static struct in_addr address(uint32_t host_order)
{
	return (struct in_addr){ .s_addr = __builtin_bswap32(host_order) };
}

static Slirp *slirp_make(struct user_net *net)
{
	const SlirpConfig config = {
		.version = 4,
		.in_enabled = true,
		.vnetwork = address(NETWORK),
		.vnetmask = address(MASK),
		.vhost = address(GATEWAY),
		.vdhcp_start = address(GUEST),
		.vnameserver = address(NAME_SERVER),
		.vhostname = "umbra",
		.if_mtu = SLIRP_MTU,
		.if_mru = SLIRP_MTU,
	};

	return slirp_new(&config, &callbacks, net);
}

static int add_forwards(struct user_net *net, const struct user_options *options,
			unsigned *ret_failed)
{
	for (unsigned n = 0; n < options->forwards; n++) {
		const struct user_forward *forward = &options->forward[n];
		const struct in_addr from = { .s_addr = forward->address };

		if (!slirp_add_hostfwd(net->slirp, forward->is_udp, from, forward->host_port,
				       address(GUEST), forward->guest_port))
			continue;
		*ret_failed = n;
		return errno ? -errno : -EADDRINUSE;
	}
	return 0;
}

int user_net_create(struct net_port *port, const struct user_options *options,
		    struct user_net **ret, unsigned *ret_failed)
{
	struct user_net *net = slirp_load() ? calloc(1, sizeof(*net)) : NULL;

	*ret_failed = options->forwards;
	if (!net)
		return -ENOMEM;
	net->port = port;
	net->host_loopback = options->host_loopback;
	net->mss = DEFAULT_MSS;
	net->guard = (struct loopback_guard){ .network = NETWORK,
					      .mask = MASK,
					      .name_server = NAME_SERVER };
	waiting_init(&net->waiting);
	net->polls_room = 64;
	net->polls = calloc(net->polls_room, sizeof(*net->polls));
	net->slirp = net->polls ? slirp_make(net) : NULL;
	if (!net->slirp)
		return -ENOMEM;
	*ret = net;
	return add_forwards(net, options, ret_failed);
}
