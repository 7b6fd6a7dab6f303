/*
 * The lines of a relay (relay.h), one for each connection.
 *
 *   of the host's     free -> greets -> asks -> joined <-> kept      from each but free and greets:
 *   of the guest's    free -------------------> joined               over, then free
 *
 *  Between two turns of its loop:
 *
 *  1. A line has a socket while it greets, asks or is joined, and at no other time.
 *  2. The host's ask at once: the slot by which they do is here while they greet.
 *  3. Of data that the guest has sent no more is held than a slot has, and only of who is joined:
 *     that is who may still write them.
 *  4. One that is kept is an agent's, of which the guest's side is open; RELAY_KEPT_MOST of them.
 *  5. When both sides have finished it is over; over it says GONE as soon as its slot is here, and
 *     when that was said and heard it is free, as it began.
 */
#pragma once

#include "conversation.h"
#include "relay.h"

/*
 * Greets: its first line is still to come. Asks: for the guest's answer. Kept: nobody has it, and
 * who connects to the agent next gets it. Over: its socket is closed, and GONE was not said or not
 * heard yet.
 */
enum relay_state { LINE_FREE, LINE_GREETS, LINE_ASKS, LINE_JOINED, LINE_KEPT, LINE_OVER };

enum { RELAY_LINE_BYTES = 32, RELAY_KEPT_MOST = 4 };

struct relay_line {
	enum relay_state state;
	int fd;
	bool has_empty; /* the first slot is here */
	bool wants_connect, said_gone, heard_gone, host_finished, guest_finished;
	uint32_t port;
	char text[RELAY_LINE_BYTES];
	unsigned text_used;
	/* of the second slot: so much of its data is yet to be written */
	uint32_t held_at, held_bytes;
	struct conversation conversation; /* with the agent; of others it is not followed */
};

struct relay {
	const struct relay_options *options;
	uint32_t generation;
	bool has_begun;
	struct slot_server slots;
	struct relay_line line[CONNECTIONS];
};

void check_relay(const struct relay *relay);
