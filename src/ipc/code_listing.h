/*
 * What a machine says of translated code (umbra debug block): listings behind one another, a block
 * or a cold part of it each. The machine process is as little believed as its guest: what it says
 * is checked before any of it is used.
 *
 *   struct listing_head, maps (struct listing_map), the guest's bytes, the host's
 *
 *    - Of each map host <= head.host_bytes and guest < head.guest_bytes; hosts ascend.
 *    - hot_begin <= hot_end <= host_bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LISTING_GUEST_BYTES = 1024,
	LISTING_HOST_BYTES = 60 << 10,
	LISTING_MAPS = 512,
	LISTINGS_MOST = 16 /* in one answer */
};

/*
 * Which is asked for. has_root: of gva as these page tables (CR3) have it; else, or where they do
 * not, of what was first made for gva.
 */
struct listing_wanted { uint64_t gva, root; uint32_t has_root, zero; };

/* gva: the first that it was made at; there may be others. */
struct listing_head {
	uint64_t gva, gpa;
	uint16_t code_bits, insns, links, guest_bytes, host_bytes, hot_begin, hot_end, maps;
	uint8_t is_user, is_part, zero[6];
};
/* guest: in the guest's bytes; from_gva: the instruction's address, which may be any. */
struct listing_map { uint16_t host, guest; int16_t from_gva; };
enum {
	LISTING_BYTES = sizeof(struct listing_head) + LISTING_MAPS * sizeof(struct listing_map) +
			LISTING_GUEST_BYTES + LISTING_HOST_BYTES
};

struct listing {
	struct listing_head head;
	struct listing_map map[LISTING_MAPS];
	const uint8_t *guest, *host; /* in what was read */
};

/* The bytes of the first one of these, and it is in *ret; 0: it is none. */
size_t listing_read(const uint8_t *data, size_t bytes, struct listing *ret);
