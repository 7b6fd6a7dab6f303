/* Inside the channel to another machine; the lock and the invariants are share_device.h's. */
#pragma once

#include "abi/share.h"
#include "lend_table.h"
#include "share_device.h"

/* of each packet that is sent, each end of a lend, and each packet that is being taken */
enum { OWED = SHARE_SEND_SLOTS + LENDS + 1 };
#define NO_PEERS_WORD UINT32_MAX
enum slot_state { SLOT_FREE, SLOT_HUBS, SLOT_WAITS, SLOT_STATES };

/* A packet that is with the hub, and wants its completion. */
struct sent {
	uint64_t transaction;
	bool wants_completion;
};

/* A completion, or (no transaction) another message. */
struct owed { uint64_t transaction; bool completes; struct share_lent answer; };

struct share_counters {
	uint64_t sent, sent_bytes, received, received_bytes;
	uint64_t lent, ended, refused, wrong, again, had, hubs, hubs_failed;
};

struct share {
	struct bus_service service;
	struct bus_channel *channel;
	struct share_memory *memory;
	struct slot_client *client;
	unsigned number;
	uint32_t side;
	bool paused;

	/* the hub's life */
	uint32_t generation, serving, peer_word;
	bool cut_off, peer_is_there; /* peer_word: another each time that the other end opens */

	/* the guest's */
	bool is_open, is_renewed; /* is_renewed: it is to be taken away, and offered again */
	uint32_t openings, told_word; /* what it was told of peer_word; 0: that nobody is there */
	uint32_t version; /* 0: none */

	/* this side's numbers, and what has come of the other side's (invariant 4) */
	uint64_t epoch, number_sent;
	uint64_t peer_epoch, had;

	/* invariant 1 */
	uint8_t slot[SHARE_SLOTS];
	unsigned send_free;
	uint8_t send_stack[SHARE_SEND_SLOTS];
	struct sent sent[SHARE_SLOTS];
	struct share_packet packet[SHARE_SLOTS]; /* copies of heads: sent, or waiting */
	unsigned waiting_first, waiting;
	uint8_t wait[SHARE_RECEIVE_SLOTS];
	/* slots that are the hub's, in the order in which they were sent: the oldest first */
	unsigned order_first, ordered;
	uint8_t order[SHARE_SEND_SLOTS];
	bool submitted;

	/* invariant 3 */
	unsigned owed_first, owed_count;
	struct owed owed[OWED];

	struct lend_table lends;
	struct port_window *window;
	uint64_t window_gpa, read_only_gpa;

	struct share_counters counters;
};

/* Whether this side is open, as the other one sees it; each time that it is is another. */
void share_say_open(struct share *share, bool is_open);
/* What the guest calls a packet of the port's. */
enum share_kind share_message_of(enum share_packet_kind kind);
/* Nothing is under way. */
void share_reset_slots(struct share *share);
