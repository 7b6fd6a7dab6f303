/* See switch.h. One thread, one poll. */
#include "switch_internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/check.h"

enum {
	FLOOD_PER_S = 2000,
	STALL_MS = 100,
	/* what nobody is charged for: who takes 60 MB or 10,000 frames a second does not stall */
	FREE_US = 100,
	FREE_NS_PER_BYTE = 16,
	LONELY_MS = 5000,
	SECOND_MS = 1000,
	US_PER_MS = 1000,
	NS_PER_US = 1000,
	TURN_FRAMES = 16,
	GROUP = 1,
};

static void check_port(const struct hub *hub, const struct port *port)
{
	if (port->fd == NOBODY)
		assert(!port->has_joined);
	for (unsigned n = 0; port->has_joined && n < SWITCH_PORTS; n++)
		assert(&hub->port[n] == port || !hub->port[n].has_joined ||
		       memcmp(hub->port[n].mac, port->mac, NET_MAC_BYTES));
	assert(port->stalled_us >= 0);
	if (port->to == NOBODY)
		return;
	assert(port->has_joined);
	assert(port->to >= 0 && port->to < SWITCH_PORTS && &hub->port[port->to] != port);
	assert(hub->port[port->to].has_joined);
	assert(port->bytes >= sizeof(port->message.frame) && port->bytes <= sizeof(port->message));
	assert(port->turn && port->turn <= hub->turns);
	for (unsigned n = 0; n < SWITCH_PORTS; n++)
		assert(&hub->port[n] == port || hub->port[n].to == NOBODY ||
		       hub->port[n].turn != port->turn);
}

void check_switch(const struct hub *hub)
{
	unsigned ports = 0;

	for (unsigned n = 0; n < SWITCH_PORTS; n++) {
		check_port(hub, &hub->port[n]);
		ports += hub->port[n].fd != NOBODY;
		assert(n < hub->top || hub->port[n].fd == NOBODY);
	}
	assert(ports == hub->ports);
	assert(hub->top <= SWITCH_PORTS && (!hub->top || hub->port[hub->top - 1].fd != NOBODY));
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / NS_PER_US;
}

static int64_t now_ms(void) { return now_us() / US_PER_MS; }

/* ---- ports ---- */

static void port_close(struct hub *hub, struct port *port)
{
	const int number = (int)(port - hub->port);

	close(port->fd);
	*port = (struct port){ .fd = NOBODY, .to = NOBODY };
	hub->ports--;
	hub->lonely_ms = now_ms();
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].to == number)
			hub->port[n].to = NOBODY;
	while (hub->top && hub->port[hub->top - 1].fd == NOBODY)
		hub->top--;
}

static void accept_port(struct hub *hub)
{
	int fd = accept4(hub->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned n = 0; n < SWITCH_PORTS && fd >= 0; n++) {
		if (hub->port[n].fd != NOBODY)
			continue;
		hub->port[n] = (struct port){ .fd = fd, .to = NOBODY };
		hub->ports++;
		if (n >= hub->top)
			hub->top = n + 1;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static struct port *find_port(struct hub *hub, const uint8_t mac[NET_MAC_BYTES])
{
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].has_joined && !memcmp(hub->port[n].mac, mac, NET_MAC_BYTES))
			return &hub->port[n];
	return NULL;
}

/* False: it is not let in. The older port of an address gives way: its machine has ended. */
static bool port_join(struct hub *hub, struct port *port, size_t bytes)
{
	struct switch_hello hello;
	struct port *other;

	if (bytes != sizeof(hello))
		return false;
	memcpy(&hello, &port->message, sizeof(hello));
	if (hello.magic != SWITCH_MAGIC || hello.version != SWITCH_VERSION ||
	    !switch_policy_admits(&hello))
		return false;
	other = find_port(hub, hello.mac);
	if (other)
		port_close(hub, other);
	memcpy(port->mac, hello.mac, NET_MAC_BYTES);
	port->has_joined = true;
	return true;
}

/* ---- frames ---- */

/* It has waited so long in this second that it does not any more. */
static bool has_stalled(struct port *from)
{
	const int64_t now = now_ms();

	if (now - from->stall_ms >= SECOND_MS) {
		from->stall_ms = now;
		from->stalled_us = 0;
	}
	return from->stalled_us >= STALL_MS * US_PER_MS;
}

static void charge(struct port *from)
{
	const int64_t free_us = FREE_US + (int64_t)from->bytes * FREE_NS_PER_BYTE / NS_PER_US;
	const int64_t waited_us = now_us() - from->since_us;

	if (waited_us > free_us)
		from->stalled_us += waited_us - free_us;
}

static bool is_waited_for(const struct hub *hub, int to)
{
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].to == to)
			return true;
	return false;
}

/* False: it has to wait. */
static bool give(struct port *to, const struct message *message, size_t bytes)
{
	ssize_t sent = send(to->fd, message, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	to->is_slow = to->is_slow && sent < 0;
	return sent >= 0 || (errno != EAGAIN && errno != ENOBUFS) || to->is_slow;
}

static bool may_flood(struct port *port)
{
	const int64_t now = now_ms();

	if (now - port->flood_ms >= SECOND_MS) {
		port->flood_ms = now;
		port->flooded = 0;
	}
	return port->flooded++ < FLOOD_PER_S;
}

static void flood(struct hub *hub, struct port *from, size_t bytes)
{
	if (!may_flood(from))
		return;
	for (unsigned n = 0; n < hub->top; n++)
		if (hub->port[n].has_joined && &hub->port[n] != from)
			give(&hub->port[n], &from->message, bytes); /* or lost */
}

/* False: the port is lost. */
static bool pass_on(struct hub *hub, struct port *from, size_t bytes)
{
	const struct net_frame *frame = &from->message.frame;
	struct port *to;

	if (bytes < sizeof(*frame) || bytes - sizeof(*frame) != frame->bytes ||
	    !net_frame_is_sound(frame))
		return false;
	if (!switch_policy_lets_pass(from->mac, frame, from->message.data))
		return true;
	if (from->message.data[0] & GROUP) {
		flood(hub, from, bytes);
		return true;
	}
	to = find_port(hub, from->message.data);
	if (!to || to == from)
		return true;
	/* behind who waits already, be there room or not */
	if (!is_waited_for(hub, (int)(to - hub->port)) && give(to, &from->message, bytes))
		return true;
	if (has_stalled(from))
		return true;
	from->to = (int)(to - hub->port);
	from->bytes = bytes;
	from->since_us = now_us();
	from->turn = ++hub->turns;
	return true;
}

/* False: there is none, or nothing more may be taken. */
static bool take_message(struct hub *hub, struct port *port)
{
	bool is_sound = false;
	ssize_t got;

	if (port->fd == NOBODY || port->to != NOBODY)
		return false;
	got = recv(port->fd, &port->message, sizeof(port->message), MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got > 0 && !port->has_joined)
		is_sound = port_join(hub, port, (size_t)got);
	else if (got > 0)
		is_sound = pass_on(hub, port, (size_t)got);
	if (!is_sound)
		port_close(hub, port);
	return is_sound;
}

/* One of each port, and again. */
static void take_messages(struct hub *hub, bool has_some[SWITCH_PORTS])
{
	for (unsigned round = 0; round < TURN_FRAMES; round++)
		for (unsigned n = 0; n < hub->top; n++)
			if (has_some[n])
				has_some[n] = take_message(hub, &hub->port[n]);
}

/* Again what waits, or no more. False: it waits. */
static bool push(struct hub *hub, struct port *port)
{
	struct port *to = &hub->port[port->to];

	if (!give(to, &port->message, port->bytes)) {
		if (now_us() - port->since_us < STALL_MS * US_PER_MS)
			return false;
		to->is_slow = true;
	}
	charge(port);
	port->to = NOBODY;
	return true;
}

/* Of those who wait for this port the one whose turn is first; NULL: none. */
static struct port *first_waiting(struct hub *hub, int to)
{
	struct port *first = NULL;

	for (unsigned n = 0; n < hub->top; n++) {
		struct port *port = &hub->port[n];

		if (port->to == to && (!first || port->turn < first->turn))
			first = port;
	}
	return first;
}

static void push_all(struct hub *hub)
{
	for (int to = 0; to < (int)hub->top; to++) {
		struct port *first;

		while ((first = first_waiting(hub, to)) && push(hub, first))
			;
	}
}

/* ---- the loop ---- */

static int timeout_ms(bool looks, bool waits)
{
	if (looks)
		return 0;
	return waits ? STALL_MS : LONELY_MS;
}

static bool hub_turn(struct hub *hub)
{
	struct pollfd polls[SWITCH_PORTS + 1] = { { .fd = hub->listen_fd, .events = POLLIN } };
	bool has_some[SWITCH_PORTS];
	bool waits = false;
	bool looks;

	for (unsigned n = 0; n < hub->top; n++) {
		const struct port *port = &hub->port[n];

		polls[n + 1].fd = port->fd;
		if (port->to == NOBODY)
			polls[n + 1].events |= POLLIN;
		else
			polls[port->to + 1].events |= POLLOUT;
		waits |= port->to != NOBODY;
	}
	looks = brief_wait_looks(&hub->brief);
	if (poll(polls, hub->top + 1, timeout_ms(looks, waits)) > 0)
		brief_wait_found(&hub->brief);
	push_all(hub);
	for (unsigned n = 0; n < hub->top; n++)
		has_some[n] = hub->port[n].fd != NOBODY && hub->port[n].fd == polls[n + 1].fd &&
			      polls[n + 1].revents & (POLLIN | POLLHUP | POLLERR);
	take_messages(hub, has_some);
	if (polls[0].revents)
		accept_port(hub);
	CHECK(check_switch(hub));
	return hub->ports || now_ms() - hub->lonely_ms < LONELY_MS;
}

int switch_serve(int listen_fd)
{
	struct hub *hub = calloc(1, sizeof(*hub));

	if (!hub)
		return -ENOMEM;
	hub->listen_fd = listen_fd;
	hub->lonely_ms = now_ms();
	for (unsigned n = 0; n < SWITCH_PORTS; n++)
		hub->port[n] = (struct port){ .fd = NOBODY, .to = NOBODY };
	while (hub_turn(hub))
		;
	free(hub);
	return 0;
}
