/*
 * What is said at the hub's socket (SOCK_SEQPACKET, in the folder of the user's machines, so by
 * nobody but him): one struct wire_message a packet, with descriptors.
 *
 *   joiner: WIRE_RULES {rules file}, WIRE_AGENT {socket}, as often as they change
 *           WIRE_JOIN {port's memory, its bell, its answer event; the window that its machine has,
 *           from version 4 on in its parts (enum share_part)}
 *                                <--  WIRE_JOINED, version 0: refused
 *           WIRE_HOLD {pipe}, from version 3 on: when the line ends before this pipe does, its
 *           place is held until another joiner has joined with the same memory
 *           then the line stays until the machine is gone, or the hub
 *                                             <--  WIRE_AGENT: there is no agent any more
 *                                             <--  WIRE_WANT: a window of `number` parts is wanted
 *                                                  (before version 4: of one)
 *           WIRE_WINDOW {one that nobody has yet}   -->
 *                                             <--  WIRE_WINDOW {window}, number; without: none
 *                                             <--  WIRE_END {window}: it shall have no byte left
 *   umbra bus: WIRE_SHOW  -->   <--  WIRE_TEXT as often as it takes, the last without any
 */
#pragma once

#include <stdint.h>

enum { WIRE_VERSION_LEAST = 2, WIRE_VERSION = 4, WIRE_FDS = 6, WIRE_TEXT_BYTES = 4096 };
enum { WIRE_JOIN_FDS = 3 }; /* before those of a window */
enum { WIRE_VERSION_HOLDS = 3, WIRE_VERSION_PARTS = 4 }; /* WIRE_HOLD, and parts, are known */
#define WIRE_MAGIC 0x65726873u

enum wire_kind {
	WIRE_RULES = 1,
	WIRE_AGENT,
	WIRE_JOIN,
	WIRE_JOINED,
	WIRE_SHOW,
	WIRE_TEXT,
	WIRE_WANT,
	WIRE_WINDOW,
	WIRE_END,
	WIRE_HOLD
};
enum { WIRE_MACHINE_BYTES = 65, WIRE_INSTANCE_BYTES = 132, WIRE_CLASS_BYTES = 16 };

struct wire_join {
	uint32_t least, most; /* versions of the port (ipc/share_port.h) */
	uint32_t side;	      /* enum share_side of abi/share.h */
	uint32_t window_number; /* share_memory.window_wanted */
	char machine[WIRE_MACHINE_BYTES];
	char instance[WIRE_INSTANCE_BYTES]; /* MACHINE/NAME of who serves */
	char class[WIRE_CLASS_BYTES];
};
struct wire_message {
	uint32_t magic, kind;
	union {
		struct wire_join join;
		uint32_t version;
		uint32_t number; /* of a window (share_memory.window_wanted), or of its parts */
		char text[WIRE_TEXT_BYTES];
	};
};
