/*
 * The hub's invariants and those of the server of a slot queue, each broken: check_hub() and
 * check_slot_server() see it.
 */
#include <stdlib.h>
#include <string.h>

#include "../lib/caught.h"
#include "share/hub_internal.h"

enum { SOME_SLOTS = 64 };

static struct slot_server *server_in(void *server) { return server; }
static void check_server_of(void *server) { check_slot_server(server); }
static void queue_nowhere(void *server) { server_in(server)->queue = NULL; }
static void no_slots(void *server) { server_in(server)->slots = 0; }
static void too_many_slots(void *server) { server_in(server)->slots = SLOTS_MAX + 1; }
static void slot_that_there_is_not(void *server)
{
	server_in(server)->busy[SOME_SLOTS] = true;
	server_in(server)->taken++;
}
static void slot_that_nobody_asked(void *server) { server_in(server)->busy[0] = true; }
static void answer_that_nobody_gave(void *server) { server_in(server)->answered++; }

static const struct spoiling of_server[] = {
	{ "a queue that is nowhere", queue_nowhere },
	{ "no slots", no_slots },
	{ "more slots than a queue has", too_many_slots },
	{ "a slot that there is not", slot_that_there_is_not },
	{ "a slot that nobody asked with", slot_that_nobody_asked },
	{ "an answer that nobody gave", answer_that_nobody_gave },
};

/* ---- a hub with two ports that are joined, a window of theirs, and a third port ---- */

static struct hub *hub_in(void *hub) { return hub; }
static void check_hub_of(void *hub) { check_hub(hub); }
static void port_not_counted(void *hub) { hub_in(hub)->ports--; }
static void peer_of_one_side(void *hub) { hub_in(hub)->port[1].peer = NULL; }
static void peer_is_itself(void *hub) { hub_in(hub)->port[2].peer = &hub_in(hub)->port[2]; }
static void both_serve(void *hub) { hub_in(hub)->port[1].join.side = SHARE_SERVES; }
static void peer_without_memory(void *hub) { hub_in(hub)->port[1].memory = NULL; }
static void bell_of_nobody(void *hub) { hub_in(hub)->port[5].bell = 0; }
static void slot_in_no_queue(void *hub) { hub_in(hub)->port[0].empty.count--; }
static void slot_in_the_other_queue(void *hub)
{
	queue_put(&hub_in(hub)->port[0].waiting, queue_take(&hub_in(hub)->port[0].empty));
}
static void window_of_one_side(void *hub) { hub_in(hub)->port[0].window = NULL; }
static void window_of_a_third(void *hub)
{
	hub_in(hub)->port[2].window = &hub_in(hub)->window[0];
}
static void window_without_memory(void *hub) { hub_in(hub)->window[0].fd[0] = HUB_NOBODY; }
static void window_of_more_parts(void *hub) { hub_in(hub)->window[0].fd[2] = 0; }
static void window_of_strangers(void *hub)
{
	hub_in(hub)->port[0].peer = hub_in(hub)->port[1].peer = NULL;
}
static void window_that_ended(void *hub) { hub_in(hub)->window[0].state = WINDOW_ENDED; }

static void port_behind_the_last(void *hub) { hub_in(hub)->top = 2; }
static void window_behind_the_last(void *hub) { hub_in(hub)->windows_top = 0; }

static const struct spoiling of_hub[] = {
	{ "a port that is not counted", port_not_counted },
	{ "a peer that does not know it", peer_of_one_side },
	{ "a peer of itself", peer_is_itself },
	{ "two that serve each other", both_serve },
	{ "a peer without memory", peer_without_memory },
	{ "a bell of nobody", bell_of_nobody },
	{ "a slot in no queue", slot_in_no_queue },
	{ "an empty slot among those that wait", slot_in_the_other_queue },
	{ "a window that its port does not know", window_of_one_side },
	{ "a window of a third one", window_of_a_third },
	{ "a window without memory", window_without_memory },
	{ "a window with a part more", window_of_more_parts },
	{ "a window of two that are not joined", window_of_strangers },
	{ "a window that has ended and is somebody's", window_that_ended },
	{ "a port behind the last", port_behind_the_last },
	{ "a window behind the last", window_behind_the_last },
};

static void make_port(struct hub *hub, unsigned n, uint32_t side)
{
	struct port *port = &hub->port[n];

	port->line = port->bell = port->answer = 0;
	port->memory = aligned_alloc(SLOT_PAGE_BYTES, sizeof(*port->memory));
	memset(port->memory, 0, sizeof(*port->memory));
	port->join.side = side;
	port->slots = (struct slot_server){ .queue = &port->memory->queue, .slots = SHARE_SLOTS,
					    .taken = 1, .busy = { [3] = true } };
	queue_put(&port->empty, 3);
	hub->ports++;
	hub->top = n + 1;
}

static unsigned of_the_hub(void)
{
	static struct hub hub;

	for (unsigned n = 0; n < HUB_PORTS; n++)
		hub.port[n] = (struct port){ .line = HUB_NOBODY, .bell = HUB_NOBODY,
					     .answer = HUB_NOBODY };
	for (unsigned n = 0; n < HUB_WINDOWS; n++)
		window_clear(&hub.window[n]);
	make_port(&hub, 0, SHARE_SERVES);
	make_port(&hub, 1, SHARE_BINDS);
	make_port(&hub, 2, SHARE_BINDS);
	hub.port[0].peer = &hub.port[1];
	hub.port[1].peer = &hub.port[0];
	hub.windows_top = 1;
	hub.port[0].window = hub.port[1].window = &hub.window[0];
	hub.window[0] = (struct window){ .state = WINDOW_COMMON,
					 .parts = 1,
					 .fd = { 0, HUB_NOBODY, HUB_NOBODY },
					 .port = { &hub.port[0], &hub.port[1] } };
	return CAUGHT_MISSED("hub", check_hub_of, &hub, of_hub);
}

int main(void)
{
	static struct slot_queue queue;
	struct slot_server server = { .queue = &queue, .slots = SOME_SLOTS };
	unsigned missed = CAUGHT_MISSED("slot server", check_server_of, &server, of_server);

	return missed + of_the_hub() != 0;
}
