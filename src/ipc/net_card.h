/*
 * A network card: a slot queue (slot_queue.h) between the machine process, which has the device
 * (device/netvsp), and the process that has the network: a net process (process/net_main.c) or the
 * switch (process/switch_main.c). Called the server here.
 *
 * Slots below NET_RECEIVE_SLOTS are for frames that the guest receives: the machine process submits
 * them empty (NET_RECEIVE), the reply brings one, and its result is the frame's bytes. The others
 * are for frames that the guest sends (NET_SEND): what their reply says is not looked at. A slot
 * holds a struct net_frame and the frame: Ethernet, without a checksum of the link.
 *
 *   - A server that ends is replaced by another, while the machine runs
 *     (process/supervisor_main.c). `generation` counts them. The machine process takes all slots
 *     back when it sees another one, empties both rings and says so in `accepted`; only then the
 *     new server takes the first request.
 *   - The link is up while `serving` is `generation`: the server has begun.
 *   - These words are hints of a hostile peer like the rest: they are compared, and nothing else.
 */
#pragma once

#include <stdbool.h>

#include "slot_queue.h"

enum {
	NET_CARDS = 4,
	NET_SLOTS = 128,
	NET_RECEIVE_SLOTS = 64,
	NET_FRAME_BYTES = 65535 + 18, /* the longest IP packet, behind Ethernet's head with a tag */
	NET_SLOT_BYTES = 68 << 10,
	NET_MAC_BYTES = 6,
	NET_HEAD_BYTES = 14,
	NET_LEAST_MTU = 68,
	NET_MOST_MTU = 9000,
	NET_TCP_HEAD_BYTES = 20,
};
enum net_kind { NET_RECEIVE, NET_SEND, NET_KINDS };

enum net_frame_flag {
	/* From checksum_at to the end it is yet to be summed up, into checksum_offset from there:
	 * the sum of the pseudo header stands in its place. */
	NET_CHECKSUM_MISSING = 1,
	/* The checksums of IP, TCP and UDP are known to be right. */
	NET_CHECKSUM_GOOD = 2,
	NET_IPV4 = 4,
	NET_IPV6 = 8,
	NET_TCP = 16,
	NET_UDP = 32,
	/* One TCP segment that is to be cut into segments of mss bytes, unless who gets it takes
	 * longer ones; its checksum is missing or good, and checksum_at is where TCP's head is. */
	NET_LARGE = 64,
};
struct net_frame {
	uint32_t bytes;
	uint16_t flags, mss, checksum_at, checksum_offset;
	uint32_t reserved;
};

struct net_card_memory {
	/* written before the machine process exists */
	uint8_t mac[NET_MAC_BYTES];
	/* 1; the supervisor's, the machine process's, the server's */
	_Alignas(64) uint32_t generation;
	_Alignas(64) uint32_t accepted;
	_Alignas(64) uint32_t serving;
	struct slot_queue queue;
	_Alignas(SLOT_PAGE_BYTES) uint8_t data[NET_SLOTS][NET_SLOT_BYTES];
};
_Static_assert(sizeof(struct net_frame) + NET_FRAME_BYTES <= NET_SLOT_BYTES,
	       "a slot holds a frame");

/* The sum that is missing is written into the frame. */
void net_frame_complete_checksum(const struct net_frame *frame, uint8_t *data);
/* Whether a frame's head, a copy, says nothing of bytes that the frame has not. */
bool net_frame_is_sound(const struct net_frame *frame);
