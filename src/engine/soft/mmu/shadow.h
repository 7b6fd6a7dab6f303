/*
 * Shadow pages: what is cached of 2 MiB of addresses in one view of one space, and from which of
 * the guest's page tables it came. The entries themselves are in the space's tables (table.h).
 *
 *   found    by space, view, number (address / 2 MiB), and whether it is of global pages, in a
 *            hash; those of a space are in two lists
 *   cached   a bit for each of 512 pages that has an entry; in VIEW_CODE, which has no tables, for
 *            each page with code that a jump was found to
 *   written  ... that has a write entry
 *   frames   page tables on the way to these pages, from the last level on, with the version that
 *            each had (page_table.h); of global pages none
 *   entries  ... and, where all these pages came through one entry of the table (any but a last
 *            level's of small pages), that entry, and where it is in its table
 *
 *   1. `written` is a part of `cached` (check_spaces()), and no page is both in one of global pages
 *      and in one of others.
 *   2. A shadow page all of whose frames are unchanged has only entries that a walk would find now;
 *      of a frame with an entry, that one is what must be unchanged, to the bit. One with a change
 *      is stale: it goes when the guest flushes, and not before it must.
 *
 * Nobody but its processor uses a pool.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { VIEW_CODE = VIEWS, SHADOW_SHIFT = 21, SHADOW_PAGES = 512, SHADOW_WORDS = SHADOW_PAGES / 64 };
enum { SHADOW_LEVELS = 4, SHADOW_NO_ENTRY = 0xffff };
/* SHADOWS_MOST * SHADOW_PAGES fit a slot of writers.h. */
enum { SHADOWS_MOST = 8192, SHADOW_BUCKETS = 16384 };

struct shadow {
	uint64_t cached[SHADOW_WORDS], written[SHADOW_WORDS];
	uint64_t number;
	uint32_t next_in_hash, next_in_space; /* indices + 1 */
	uint8_t space, view, levels;
	bool global;
	bool large; /* some page was a part of a larger one */
	uint8_t entry_bytes;
	uint32_t frames[SHADOW_LEVELS], versions[SHADOW_LEVELS];
	uint64_t entries[SHADOW_LEVELS];
	uint16_t places[SHADOW_LEVELS]; /* of the entries, in bytes; SHADOW_NO_ENTRY */
};

struct shadow_pool {
	struct shadow *shadows;
	uint32_t *hash;
	uint32_t free; /* index + 1: by next_in_space */
	uint32_t used, ever;
};

bool shadow_pool_create(struct shadow_pool *pool);
void shadow_pool_destroy(struct shadow_pool *pool);
/* In what was forked, which has not inherited what it consists of: it is empty. */
void shadow_pool_forget(struct shadow_pool *pool);

static inline uint64_t shadow_number(uint64_t gva)
{
	return gva << 16 >> (16 + SHADOW_SHIFT);
}
static inline unsigned shadow_page(uint64_t gva)
{
	return (unsigned)(gva / PAGE_BYTES) % SHADOW_PAGES;
}
/* The canonical address of a page. */
static inline uint64_t shadow_gva(const struct shadow *shadow, unsigned page)
{
	uint64_t gva = shadow->number << SHADOW_SHIFT | (uint64_t)page * PAGE_BYTES;

	return (uint64_t)((int64_t)(gva << 16) >> 16);
}
static inline bool shadow_has(const uint64_t bits[SHADOW_WORDS], unsigned page)
{
	return bits[page / 64] >> page % 64 & 1;
}
static inline void shadow_set(uint64_t bits[SHADOW_WORDS], unsigned page)
{
	bits[page / 64] |= 1ull << page % 64;
}

struct shadow_key { uint64_t number; uint8_t space, view; bool global; };

struct shadow *shadow_find(const struct shadow_pool *pool, struct shadow_key key);
/* An empty one, which is in no space's list yet. NULL: all are in use. */
struct shadow *shadow_take(struct shadow_pool *pool, struct shadow_key key);
/* One that is empty and in no list. */
void shadow_release(struct shadow_pool *pool, struct shadow *shadow);
