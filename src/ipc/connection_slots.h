/*
 * Connections between programs of the guest and of the host: a slot queue (slot_queue.h) between
 * the machine process, which has the channels (device/hvsock), and the relay process, which has
 * the sockets (net/relay).
 *
 * Connection n has two slots: n for what comes from the host, CONNECTIONS + n for what goes to it.
 * The machine process submits the first one empty (CONNECTION_TAKE), and its reply brings a
 * message; it submits the second one with a message. The first CONNECTIONS_OF_HOST connections
 * begin with the host's CONNECTION_CONNECT, the others with the guest's.
 *
 *   CONNECT   a port is looked for. Of the host's: OPENED or GONE answer it; of the guest's: the
 *             reply's result is 0 or -errno
 *   OPENED    the guest has accepted
 *   DATA      from 1 to CONNECTION_BYTES bytes
 *   FINISHED  nothing more comes from this side
 *   GONE      the end, once from each side, and the last that it says of this connection
 *
 *   - Each direction has at most one message under way: who does not read holds up nobody else, and
 *     what a connection keeps is two slots.
 *   - A connection is free again when both have said GONE and the first slot has come back empty.
 *   - A message's head is copied before it is checked; its data may change at any time.
 *   - A relay that ends is replaced by another, while the machine runs
 *     (process/supervisor_main.c). `generation` counts them. When the machine process sees another
 *     one every connection is at its end, without a word; it takes all slots back, empties both
 *     rings and says so in `accepted`; only then the new relay takes the first request. Both words
 *     are hints of a hostile peer: they are compared, and nothing else.
 */
#pragma once

#include "slot_queue.h"

enum {
	CONNECTIONS = 64,
	CONNECTIONS_OF_HOST = 32,
	CONNECTION_SLOTS = 2 * CONNECTIONS,
	CONNECTION_BYTES = 16 << 10,
};
_Static_assert((int)CONNECTION_SLOTS <= (int)SLOTS_MAX, "a queue");

enum connection_kind {
	CONNECTION_TAKE,
	CONNECTION_CONNECT,
	CONNECTION_OPENED,
	CONNECTION_DATA,
	CONNECTION_FINISHED,
	CONNECTION_GONE,
	CONNECTION_KINDS
};

struct connection_message { uint32_t kind, port, bytes, reserved; };

struct connection_slot {
	struct connection_message message;
	uint8_t data[CONNECTION_BYTES];
};

struct connection_memory {
	/* the supervisor's, the machine process's */
	_Alignas(64) uint32_t generation;
	_Alignas(64) uint32_t accepted;
	struct slot_queue queue;
	_Alignas(SLOT_PAGE_BYTES) struct connection_slot slot[CONNECTION_SLOTS];
};
