/* The switch's invariants, each broken: check_switch() sees it. */
#include <string.h>

#include "../lib/caught.h"
#include "net/switch/switch_internal.h"

static struct hub *hub_in(void *hub) { return hub; }
static void check_switch_of(void *hub) { check_switch(hub); }
static void port_not_counted(void *hub) { hub_in(hub)->ports--; }
static void nobody_has_joined(void *hub) { hub_in(hub)->port[5].has_joined = true; }
static void address_twice(void *hub)
{
	memcpy(hub_in(hub)->port[1].mac, hub_in(hub)->port[0].mac, NET_MAC_BYTES);
}
static void waits_for_itself(void *hub) { hub_in(hub)->port[0].to = 0; }
static void waits_for_nobody(void *hub) { hub_in(hub)->port[0].to = 5; }
static void waits_beyond_the_last(void *hub) { hub_in(hub)->port[0].to = SWITCH_PORTS; }
static void waits_with_nothing(void *hub) { hub_in(hub)->port[0].bytes = 0; }
static void waits_with_too_much(void *hub)
{
	hub_in(hub)->port[0].bytes = sizeof(struct message) + 1;
}
static void turn_twice(void *hub) { hub_in(hub)->port[1].turn = hub_in(hub)->port[0].turn; }
static void turn_of_the_future(void *hub) { hub_in(hub)->port[0].turn = 9; }
static void waits_before_it_joined(void *hub) { hub_in(hub)->port[1].has_joined = false; }
static void waited_less_than_nothing(void *hub) { hub_in(hub)->port[2].stalled_us = -1; }

static const struct spoiling of_switch[] = {
	{ "a port that is not counted", port_not_counted },
	{ "nobody who has joined", nobody_has_joined },
	{ "an address twice", address_twice },
	{ "one that waits for itself", waits_for_itself },
	{ "one that waits for nobody", waits_for_nobody },
	{ "one that waits for a port that there is not", waits_beyond_the_last },
	{ "one that waits with nothing", waits_with_nothing },
	{ "one that waits with more than a frame", waits_with_too_much },
	{ "a turn twice", turn_twice },
	{ "a turn that was not given yet", turn_of_the_future },
	{ "one that waits before it has joined", waits_before_it_joined },
	{ "one that has waited less than nothing", waited_less_than_nothing },
};

int main(void)
{
	static struct hub hub = { .ports = 3, .turns = 2 };

	for (unsigned n = 0; n < SWITCH_PORTS; n++)
		hub.port[n] = (struct port){ .fd = NOBODY, .to = NOBODY };
	for (uint8_t n = 0; n < 3; n++)
		hub.port[n] = (struct port){ .fd = n, .has_joined = true, .mac = { 2, n },
					     .to = NOBODY };
	for (unsigned n = 0; n < 2; n++) {
		hub.port[n].to = 2;
		hub.port[n].turn = n + 1;
		hub.port[n].bytes = sizeof(struct net_frame) + 60;
	}
	return CAUGHT_MISSED("switch", check_switch_of, &hub, of_switch) != 0;
}
