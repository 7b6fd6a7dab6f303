/*
 * From a frame to the write entries that lead to it, of one processor: what a frame that gets code,
 * or a page table that is to be watched again, has to lose.
 *
 *   slot   0, or a place: (shadow page, page in it) + 1; WRITERS_MANY in the last one: there may be
 *          more than the slots know, and all shadow pages are looked through
 *
 *   1. Every write entry is in a slot of its frame, or the frame has WRITERS_MANY (check_spaces()).
 *
 * What a slot says may be over: it is looked at before it is believed.
 */
#pragma once

#include "shadow.h"

enum { WRITERS_SLOTS = 4 };
#define WRITERS_MANY (~0u)

struct writers { uint32_t slot[WRITERS_SLOTS]; };

static inline uint32_t writers_place(const struct shadow_pool *pool, const struct shadow *shadow,
				     unsigned page)
{
	return (uint32_t)(shadow - pool->shadows) * SHADOW_PAGES + page + 1;
}

/*
 * The place leads to this frame from now on. False: there was no free slot; the caller says of each
 * whether it is over, or sets WRITERS_MANY.
 */
static inline bool writers_add(struct writers *writers, uint32_t place)
{
	for (unsigned n = 0; n < WRITERS_SLOTS; n++) {
		if (writers->slot[n] == place || writers->slot[n] == WRITERS_MANY)
			return true;
		if (!writers->slot[n]) {
			writers->slot[n] = place;
			return true;
		}
	}
	return false;
}

/* Whether a write entry of that place would be found. */
static inline bool writers_know(const struct writers *writers, uint32_t place)
{
	for (unsigned n = 0; n < WRITERS_SLOTS; n++)
		if (writers->slot[n] == place || writers->slot[n] == WRITERS_MANY)
			return true;
	return false;
}
