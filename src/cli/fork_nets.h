/*
 * The network cards of a machine that is forked, and its sockets, on the user's side: what each
 * child's are connected to, and what it is given for them.
 *
 *  1. A child has as many cards as its parent, each in a network of its own kind: another network
 *     in user mode, another port of the same switch, or what --net says. A tap is never shared.
 *  2. Where a child can meet its parent it has an address of its own, and the guest a new card; in
 *     user mode it is alone, and keeps both unless --mac new says otherwise.
 *  3. Ports of the host stay the parent's; a child has those of its own -p.
 */
#pragma once

#include <jansson.h>

#include "ipc/forker.h"
#include "net_option.h"
#include "process/plan.h"

enum fork_mac { FORK_MAC_BY_NETWORK, FORK_MAC_NEW, FORK_MAC_KEEP };

struct fork_nets {
	struct net_options options; /* --net and -p */
	enum fork_mac mac;
	bool has_sockets; /* programs of the host connect to the guest's */
};

/* One child's. */
struct child_nets {
	struct net_plan plan;
	struct grants grants; /* taps alone */
	int card[NET_CARDS], bell[NET_CARDS], answer[NET_CARDS]; /* for who serves it; -1 */
	int listener;                                            /* -1 */
};

/* What umbra info says of a machine's cards and sockets. 0 or -errno. */
int fork_nets_describe(const struct net_plan *nets, const struct relay_plan *relay,
		       json_t *machine);
/* From what info has said, for so many children. 0 or the exit code. */
int fork_nets_learn(struct fork_nets *nets, const char *machine, unsigned long children,
		    const json_t *info);
/* Nothing is open. */
void child_nets_begin(struct child_nets *nets);
/* A child's networks, and its part of the kit. 0 or the exit code. */
int fork_nets_of_child(struct fork_nets *nets, const char *child, struct child_nets *ret,
		       int kit[KIT_MOST_FDS]);
/* The same, of one that never runs: its cards are as its parent's, and nobody serves them. */
int fork_nets_of_image(struct fork_nets *nets, const char *machine, const json_t *info,
		       struct child_nets *ret, int kit[KIT_MOST_FDS]);
/* Its socket, into its broker's plan. 0 or the exit code. */
int fork_nets_listen(const struct fork_nets *nets, const char *child, struct child_nets *ret,
		     struct relay_plan *relay);
/* What its broker is given. */
void child_nets_give(const struct child_nets *nets, struct grants *ret);
void child_nets_close(struct child_nets *nets);
