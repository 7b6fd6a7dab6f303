/*
 * A port: one machine's end of a joint, the channel between two machines of a user. It is a slot
 * queue (slot_queue.h) between the machine process, which has the device (device/share), and the
 * hub (share/hub.h), which has all ports and carries packets from one to the other.
 *
 * Slots below SHARE_RECEIVE_SLOTS are for packets that the guest receives: submitted empty
 * (SHARE_RECEIVE), the reply brings one, and its result is the packet's bytes. The others are for
 * packets that the guest sends (SHARE_SEND); result: 0, or why it was not delivered. A slot holds a
 * struct share_packet and its bytes.
 *
 *   - A hub that ends is replaced by another, while the machine runs (process/joiner_main.c).
 *     `generation` counts the times a port has joined one. The machine process takes what the old
 *     hub has still brought, empties both rings, submits again what was not answered, and says so
 *     in `accepted`; only then the new hub takes the first request.
 *   - A packet has a number, one more than that before it of the same side's life (`epoch`). Who
 *     receives passes over a number that it has had. A hub delivers before it answers: so a packet
 *     that is sent again is neither lost nor delivered twice.
 *   - These words are hints of a hostile peer like the rest: they are compared, and nothing else.
 */
#pragma once

#include <stdbool.h>

#include "slot_queue.h"

enum {
	SHARE_PORTS = 2,
	SHARE_SLOTS = 128,
	SHARE_RECEIVE_SLOTS = 64,
	SHARE_SEND_SLOTS = SHARE_SLOTS - SHARE_RECEIVE_SLOTS,
	SHARE_SLOT_BYTES = 4096,
	SHARE_PACKET_MAX_BYTES = 3072,
	SHARE_WINDOW_PAGES = 256,
	SHARE_SHOWN_PAGES = SHARE_WINDOW_PAGES + 1, /* to a guest: and the window's word */
};
/* As enum share_side of abi/share.h has them; half 0 of a window is what the first has lent. */
enum { SHARE_SIDE_SERVES = 1, SHARE_SIDE_BINDS };
/* The files of a window: what both may write, and what one side lends that the other only reads. */
enum share_part { SHARE_PART_BOTH, SHARE_PART_SERVES, SHARE_PART_BINDS, SHARE_PARTS };
enum share_class { SHARE_CLASS_PACKET, SHARE_CLASS_DISK, SHARE_CLASSES };
enum share_request_kind { SHARE_RECEIVE, SHARE_SEND };
/*
 * A request's target: of a packet whose sender need not be woken to hear that it was delivered. The
 * reply is there when he looks; what comes of it otherwise he hears at once.
 */
enum { SHARE_HEARS_AT_ONCE, SHARE_HEARS_LATER };
/* A port's side and class in a byte; 0: there is no port. */
enum {
	SHARE_PORT_KINDS = SHARE_CLASSES * SHARE_SIDE_BINDS,
	SHARE_PORT_NONE = 0
};
static inline uint8_t share_port_kind(uint32_t side, uint32_t class)
{
	return (uint8_t)(class * SHARE_SIDE_BINDS + side);
}
static inline uint32_t share_port_side(uint8_t kind) { return 1 + (kind - 1u) % SHARE_SIDE_BINDS; }
static inline uint32_t share_port_class(uint8_t kind) { return (kind - 1u) / SHARE_SIDE_BINDS; }

/*
 * What a packet is. LENT: the pages of this number have appeared in the window. ENDED: they are
 * gone. RELEASE: of what the other side has lent, an access has ended. ASK is answered by the hub:
 * whether pages may be lent.
 */
enum share_packet_kind {
	SHARE_PACKET_DATA,
	SHARE_PACKET_ASK,
	SHARE_PACKET_LENT,
	SHARE_PACKET_ENDED,
	SHARE_PACKET_RELEASE,
	SHARE_PACKET_KINDS
};
/* flags, of ASK and LENT: pages that the other side may only read. */
enum { SHARE_PACKET_READ_ONLY = 1 };
/* id: of DATA perhaps the pages that it is about; 0: none. */
struct share_packet {
	uint64_t epoch, number;
	uint32_t bytes, kind;
	uint32_t id, first, pages, flags;
};

/*
 * What both machine processes of a joint have mapped while one may lend to the other
 * (port_window.h): pages that the serving side has lent, and those of the other. Either may read
 * and write all of it at any time; what is not lent is nobody's. The window's other two files are
 * a half each, which one side may write, and the other has by a descriptor that only reads.
 */
struct share_window {
	_Alignas(SLOT_PAGE_BYTES) uint8_t page[2][SHARE_WINDOW_PAGES][SLOT_PAGE_BYTES];
};
enum { SHARE_HALF_BYTES = sizeof(struct share_window) / 2 };
static inline size_t share_part_bytes(unsigned part)
{
	return part == SHARE_PART_BOTH ? sizeof(struct share_window) : (size_t)SHARE_HALF_BYTES;
}

struct share_memory {
	/* written before the machine process exists: enum share_side of abi/share.h (0: nobody is
	 * at it, or will be), enum share_class, and what tells this life of the machine from any
	 * other */
	uint32_t side, class;
	uint64_t epoch;
	/* 1; the joiner's, the machine process's, the hub's */
	_Alignas(64) uint32_t generation;
	/* the joiner's: the window that the machine shall have, another number each time */
	uint32_t window_wanted;
	_Alignas(64) uint32_t accepted;
	uint32_t window_accepted;
	/* The guest has opened its channel, for so-and-so-many-th time; 0: it has not. */
	uint32_t is_open;
	_Alignas(64) uint32_t serving;
	/* Both guests have opened theirs: another number each time that the other one has, or that
	 * the two were parted, not 0. Stays as it was while there is no hub. */
	uint32_t peer_is_there;
	/* the hub's, for the next one: how often this port was parted from another */
	uint32_t partings;
	struct slot_queue queue;
	_Alignas(SLOT_PAGE_BYTES) uint8_t data[SHARE_SLOTS][SHARE_SLOT_BYTES];
};
_Static_assert(sizeof(struct share_packet) + SHARE_PACKET_MAX_BYTES <= SHARE_SLOT_BYTES,
	       "a slot holds a packet");
