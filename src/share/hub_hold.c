/*
 * The places of ports whose joiner has ended while their machine goes on: until another one joins
 * with the same memory both guests see the port as it was, and what is on its way to it waits.
 *
 *   joined --line ends--> held --the same memory joins--> between --its device begins--> joined
 *                          |                                 |
 *                          machine's pipe ends, or time      time: as one that has just joined
 *                          leaves
 *
 *   - Of a port that is held nothing is read and nothing written but that its peer is gone: its
 *     device may be on its way to the next generation.
 *   - It has no window: a joiner that is another one than before takes it away from its machine.
 *   - A place is held for HUB_PATIENCE_MS at most, and so is who waits for it. A port that has just
 *     joined has so long to begin, too: until then what another hub has said of it stays true.
 */
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub_internal.h"

bool hold_has_ended(const struct port *port)
{
	struct pollfd end = { .fd = port->end, .events = POLLIN };

	return port->end != HUB_NOBODY && poll(&end, 1, 0) > 0;
}

bool hold_begin(struct port *port)
{
	if (!port->memory || port->is_held || port->end == HUB_NOBODY ||
	    hold_has_ended(port))
		return false;
	port->is_held = true;
	port->between_until_ms = hub_now_ms() + HUB_PATIENCE_MS;
	window_leave(port);
	return true;
}

bool hold_waits(const struct port *port)
{
	return port->between_until_ms && hub_now_ms() < port->between_until_ms;
}

bool hold_is_over(const struct port *port)
{
	return port->is_held && !hold_waits(port);
}

static bool is_same(const struct port *held, const struct port *port)
{
	return held->is_held && held != port && held->memory_inode == port->memory_inode &&
	       held->join.side == port->join.side &&
	       !strcmp(held->join.machine, port->join.machine) &&
	       !strcmp(held->join.instance, port->join.instance) &&
	       !strcmp(held->join.class, port->join.class);
}

static void take_place(struct port *port, struct port *held)
{
	port->peer = held->peer;
	if (port->peer)
		port->peer->peer = port;
	held->peer = NULL;
	port->bucket = held->bucket;
	port->packets = held->packets;
	port->bytes = held->bytes;
	port->lost = held->lost;
	port->held = held->held;
	memcpy(port->decision, held->decision, sizeof(port->decision));
}

struct port *hold_end(struct hub *hub, struct port *port)
{
	for (unsigned n = 0; n < HUB_PORTS; n++) {
		struct port *held = &hub->port[n];

		if (!is_same(held, port))
			continue;
		take_place(port, held);
		return held;
	}
	return NULL;
}
