/* --net and -p of umbra run, into the plan of a machine's net processes. */
#pragma once

#include "ipc/spawn.h"
#include "process/plan.h"

/* As they were said, until everything is known. */
struct net_options {
	unsigned cards;
	bool none;
	struct net_choice card[NET_CARDS];
	bool has_mac[NET_CARDS];
	int tap_fd[NET_CARDS]; /* of a tap that was given by its number; -1 */
	unsigned forwards;
	struct net_forward forward[PLAN_FORWARDS];
};

/* False: not an address of a card. */
bool net_option_parse_mac(const char *text, uint8_t mac[NET_MAC_BYTES]);
/* KIND[,OPTION]...; each: 0 or the exit code. */
int net_option_add(struct net_options *options, const char *text);
/* [ADDRESS:]PORT:GUEST[/udp] or [/tcp]. */
int net_option_forward(struct net_options *options, const char *text);
/* How many cards the machine has: with -p alone one in user mode. */
unsigned net_options_count(const struct net_options *options);
/*
 * Into a plan, with addresses, and taps into the grants. name: the machine's, or NULL; with one a
 * card has the same address each time.
 */
int net_option_take(struct net_options *options, const char *name, struct net_plan *nets,
		    struct grants *grants);
