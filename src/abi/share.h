/*
 * What a guest says on a channel to another machine (docs/sharing.md), shared with guests'
 * programs: messages in packets of the ring, little-endian, at most SHARE_MESSAGE_BYTES.
 *
 *   guest                                                 host
 *   SHARE_VERSION (the first; wants its completion)  -->
 *                          <--  its completion: a version that both have, what the channel is
 *                          <--  SHARE_PEER whenever the other end comes or goes
 *   SHARE_LEND, whose ranges are whole pages         -->
 *                          <--  its completion, struct share_lent: where they are in the window
 *                               of the other end's guest, which gets SHARE_LENT; with
 *                               SHARE_READ_ONLY in its read-only window, which it cannot write
 *   SHARE_DATA with a number of SHARE_LEND: an access has begun, to those pages
 *                          <--  of the other end's: SHARE_DATA with it
 *   SHARE_RELEASE, of the other end's number: an access has ended
 *   SHARE_END, of one's own: once no access is under way, or (SHARE_NOW) at once
 *                          <--  its completion: nobody else has the pages any more
 *                          <--  SHARE_ENDED, to the other end
 *   SHARE_DATA (perhaps wants its completion)        -->  to the other end's guest, as SHARE_DATA
 *                          <--  its completion: it is there, or will never be
 */
#pragma once

#include <stdint.h>

#include "guid_layout.h"

/* The class of a channel that carries packets, as an offer's type has it. */
#define SHARE_PACKET_TYPE \
	GUID(0x2c6f3f52, 0x7d0e, 0x4a0b, 0x9b, 0x5c, 0x55, 0x4d, 0x42, 0x52, 0x41, 0x01)
/* Of the number-th channel of a machine. */
#define SHARE_INSTANCE(number) \
	GUID(0x8b1d4e07, 0x3a92, 0x4c1e, 0x8f, 0x20, 0x55, 0x4d, 0x42, 0x52, 0x41, 0x10 + (number))

/*
 * 1.1: behind the window there is a page with a struct share_window_word. 1.2: there is a read-only
 * window; a guest of an earlier version hears nothing of what is lent there.
 */
enum {
	SHARE_1_0 = 0x10000,
	SHARE_1_1 = 0x10001,
	SHARE_1_2 = 0x10002,
	SHARE_MESSAGE_BYTES = 3072,
	SHARE_DATA_MAX_BYTES = 3056
};

enum share_kind {
	SHARE_VERSION = 1,
	SHARE_PEER,
	SHARE_DATA,
	SHARE_LEND,
	SHARE_LENT,
	SHARE_RELEASE,
	SHARE_END,
	SHARE_ENDED,
};
enum share_flag {
	SHARE_ONCE = 1, /* of SHARE_LEND: ends when no access is under way any more */
	SHARE_NOW = 2,	/* of SHARE_END: also while some are */
	SHARE_READ_ONLY = 4, /* of SHARE_LEND, SHARE_LENT, from 1.2 on: the other end only reads */
};
enum share_status {
	SHARE_DONE,
	SHARE_NO_VERSION,
	SHARE_NO_PEER, /* nobody is there, or it went before it took the packet */
	SHARE_REFUSED, /* by a policy */
	SHARE_NO_PAGES, /* not whole pages of RAM, lent already, or more than there is room for */
	SHARE_NO_LEND, /* nothing of this number is lent, or it is about to end */
};
enum share_side { SHARE_SERVES = 1, SHARE_BINDS };

struct share_head { uint32_t kind, status; };
struct share_version { struct share_head head; uint32_t least, most; };
struct share_version_answer {
	struct share_head head;
	uint32_t version, side, peer_is_there, window_pages;
	uint64_t window_gpa; /* no RAM: what the other end lends appears there */
	/* from 1.2 on: as many pages; what is written there is refused (#GP) */
	uint64_t read_only_gpa;
};
enum { SHARE_VERSION_ANSWER_1_1_BYTES = 32 };
/*
 * Which window it is: 0, none of anybody else's; else another number for each, which is never had
 * again. It is 0 before the pages change: what a guest has read between two looks that found the
 * same number stood in that window, and what it has written then went there.
 */
struct share_window_word { uint64_t number; };
struct share_peer { struct share_head head; uint32_t is_there, reserved; };
/* `bytes` follow; lend: pages that it is about, 0: none. */
struct share_data { struct share_head head; uint32_t bytes, lend; };
/* Of pages, with the packet's ranges: SHARE_LEND; id: of SHARE_RELEASE, SHARE_END, SHARE_ENDED. */
struct share_lend { struct share_head head; uint32_t id, flags; };
/*
 * They are `pages` pages from page `first` of the other end's window on; flags: SHARE_READ_ONLY, of
 * its read-only window.
 */
struct share_lent { struct share_head head; uint32_t id, first, pages, flags; };
