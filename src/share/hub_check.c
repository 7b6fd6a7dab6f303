/* What must hold of a hub after each turn, whatever its ports have said. */
#include "hub_internal.h"

static void check_queue(const struct port *port, const struct queue *queue, bool sends,
			bool seen[SHARE_SLOTS])
{
	assert(queue->count <= SHARE_SLOTS && queue->first < SHARE_SLOTS);
	for (unsigned n = 0; n < queue->count; n++) {
		const unsigned slot = queue->slot[(queue->first + n) % SHARE_SLOTS];

		assert(slot < SHARE_SLOTS && (slot >= SHARE_RECEIVE_SLOTS) == sends);
		assert(port->slots.busy[slot] && !seen[slot]);
		seen[slot] = true;
	}
}

/* Nobody keeps a slot of the port's that is in no queue. */
static void check_slots(const struct port *port)
{
	bool seen[SHARE_SLOTS] = { false };

	check_slot_server(&port->slots);
	check_queue(port, &port->empty, false, seen);
	check_queue(port, &port->waiting, true, seen);
	for (unsigned n = 0; n < SHARE_SLOTS; n++)
		assert(port->slots.busy[n] == seen[n]);
}

static void check_port(const struct port *port)
{
	const struct port *peer = port->peer;

	if (!port->memory) { /* it has not joined, or is none */
		assert(!peer && !port->window);
		assert(port->bell == HUB_NOBODY && port->answer == HUB_NOBODY);
		return;
	}
	assert(port->line != HUB_NOBODY);
	check_slots(port);
	if (peer) {
		assert(peer != port && peer->peer == port && peer->memory);
		assert(peer->join.side != port->join.side);
	}
	if (port->window) {
		assert(port->window->state != WINDOW_NONE && port->window->state != WINDOW_ENDED);
		assert(port->window->port[0] == port || port->window->port[1] == port);
	}
}

static void check_window(const struct window *window)
{
	const bool has_memory = window->state != WINDOW_NONE && window->state != WINDOW_ASKED;

	assert(window->state <= WINDOW_ENDED);
	for (unsigned n = 0; n < SHARE_PARTS; n++)
		assert((window->fd[n] != HUB_NOBODY) == (has_memory && n < window->parts));
	assert(!window->port[0] || window->port[0] != window->port[1]);
	for (unsigned n = 0; n < 2; n++)
		assert(!window->port[n] || window->port[n]->window == window);
	if (window->state == WINDOW_NONE || window->state == WINDOW_ENDED)
		assert(!window->port[0] && !window->port[1]);
	if (window->state == WINDOW_GIVEN || window->state == WINDOW_COMMON)
		assert(window->port[0] && window->port[0]->peer == window->port[1]);
}

void check_hub(const struct hub *hub)
{
	unsigned ports = 0;

	for (unsigned n = 0; n < HUB_PORTS; n++) {
		check_port(&hub->port[n]);
		ports += hub->port[n].line != HUB_NOBODY;
		assert(hub->port[n].line == HUB_NOBODY || n < hub->top);
	}
	assert(ports == hub->ports);
	for (unsigned n = 0; n < HUB_WINDOWS; n++) {
		check_window(&hub->window[n]);
		assert(hub->window[n].state == WINDOW_NONE || n < hub->windows_top);
	}
}
