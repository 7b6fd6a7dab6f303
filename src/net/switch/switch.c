/* See switch.h. One thread, one poll. */
#include "switch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	FLOOD_PER_S = 2000,
	STALL_MS = 100,
	LONELY_MS = 5000,
	TURN_FRAMES = 16,
	GROUP = 1,
	NOBODY = -1,
};

struct message {
	struct net_frame frame;
	uint8_t data[NET_FRAME_BYTES];
};

struct port {
	int fd; /* NOBODY: there is none */
	bool has_joined, is_slow;
	uint8_t mac[NET_MAC_BYTES];
	int64_t flood_ms; /* when its second began */
	unsigned flooded;
	/* what the port at `to` has not taken yet */
	int to;
	int64_t since_ms;
	size_t bytes;
	struct message message;
};

struct hub {
	int listen_fd;
	int64_t lonely_ms;
	unsigned ports;
	struct port port[SWITCH_PORTS];
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- ports ---- */

static void port_close(struct hub *hub, struct port *port)
{
	const int number = (int)(port - hub->port);

	close(port->fd);
	*port = (struct port){ .fd = NOBODY, .to = NOBODY };
	hub->ports--;
	hub->lonely_ms = now_ms();
	for (unsigned n = 0; n < SWITCH_PORTS; n++)
		if (hub->port[n].to == number)
			hub->port[n].to = NOBODY;
}

static void accept_port(struct hub *hub)
{
	int fd = accept4(hub->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned n = 0; n < SWITCH_PORTS && fd >= 0; n++) {
		if (hub->port[n].fd != NOBODY)
			continue;
		hub->port[n] = (struct port){ .fd = fd, .to = NOBODY };
		hub->ports++;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static struct port *find_port(struct hub *hub, const uint8_t mac[NET_MAC_BYTES])
{
	for (unsigned n = 0; n < SWITCH_PORTS; n++)
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

	if (now - port->flood_ms >= 1000) {
		port->flood_ms = now;
		port->flooded = 0;
	}
	return port->flooded++ < FLOOD_PER_S;
}

static void flood(struct hub *hub, struct port *from, size_t bytes)
{
	if (!may_flood(from))
		return;
	for (unsigned n = 0; n < SWITCH_PORTS; n++)
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
	if (!to || to == from || give(to, &from->message, bytes))
		return true;
	from->to = (int)(to - hub->port);
	from->bytes = bytes;
	from->since_ms = now_ms();
	return true;
}

static void take_messages(struct hub *hub, struct port *port)
{
	for (unsigned n = 0; n < TURN_FRAMES && port->to == NOBODY; n++) {
		ssize_t got = recv(port->fd, &port->message, sizeof(port->message), MSG_DONTWAIT);
		bool is_sound;

		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0)
			is_sound = false;
		else if (!port->has_joined)
			is_sound = port_join(hub, port, (size_t)got);
		else
			is_sound = pass_on(hub, port, (size_t)got);
		if (!is_sound) {
			port_close(hub, port);
			return;
		}
	}
}

/* Again what waits, or no more. */
static void push(struct hub *hub, struct port *port)
{
	struct port *to = &hub->port[port->to];

	if (give(to, &port->message, port->bytes)) {
		port->to = NOBODY;
	} else if (now_ms() - port->since_ms >= STALL_MS) {
		port->to = NOBODY;
		to->is_slow = true;
	}
}

/* ---- the loop ---- */

static bool hub_turn(struct hub *hub)
{
	struct pollfd polls[SWITCH_PORTS + 1] = { { .fd = hub->listen_fd, .events = POLLIN } };
	bool waits = false;

	for (unsigned n = 0; n < SWITCH_PORTS; n++) {
		const struct port *port = &hub->port[n];

		polls[n + 1].fd = port->fd;
		if (port->to == NOBODY)
			polls[n + 1].events |= POLLIN;
		else
			polls[port->to + 1].events |= POLLOUT;
		waits |= port->to != NOBODY;
	}
	poll(polls, SWITCH_PORTS + 1, waits ? STALL_MS : LONELY_MS);
	for (unsigned n = 0; n < SWITCH_PORTS; n++) {
		struct port *port = &hub->port[n];

		if (port->to != NOBODY)
			push(hub, port);
		if (port->fd != NOBODY && port->fd == polls[n + 1].fd &&
		    polls[n + 1].revents & (POLLIN | POLLHUP | POLLERR))
			take_messages(hub, port);
	}
	if (polls[0].revents)
		accept_port(hub);
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
