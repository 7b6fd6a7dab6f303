/*
 * Which pages of RAM the guest has: what it started with, what was added to it since and it has
 * acknowledged, and which of them are in its balloon.
 *
 *   frame   0 ........ start ........ held ........ populated ........ frames
 *           since it started   added          being added       address space only
 *
 *  1. A page is in the balloon once, and is one that the guest holds.
 *  2. held <= populated <= frames; neither shrinks. A region that was offered stays populated, also
 *     when the guest does not take it.
 *
 * Lock: the owner's.
 */
#pragma once

#include "memory/memory.h"

struct archive;

struct pages {
	const struct guest_memory *memory;
	uint64_t frames, region, start, held, inflated; /* region: what is added at once */
	uint64_t *map; /* bit frame: in the balloon */
	size_t map_bytes;
	uint64_t search; /* where the next page to give back is looked for */
};

/* What is populated is the guest's. region_bytes: of pages, not 0. 0 or -ENOMEM. */
int pages_make(struct pages *pages, const struct guest_memory *memory, uint64_t region_bytes);
void pages_free(struct pages *pages);
/* Of those that it holds. */
static inline uint64_t pages_assigned(const struct pages *pages)
{
	return pages->held - pages->inflated;
}
uint64_t pages_gfn(const struct pages *pages, uint64_t frame);
/*
 * `count` pages from gfn on go into the balloon. 0; -EBADMSG: they are not all the guest's, or one
 * is in it already. Then none of them goes in.
 */
int pages_inflate(struct pages *pages, uint64_t gfn, uint64_t count);
/*
 * The next pages that follow each other leave the balloon, at most `most`; there is one. *ret_gfn
 * is the first; how many.
 */
uint64_t pages_deflate(struct pages *pages, uint64_t most, uint64_t *ret_gfn);
/* None is in the balloon any more. */
void pages_deflate_all(struct pages *pages);
/* Whether a region can be added, aligned to its size, behind what the guest holds. */
bool pages_can_add(const struct pages *pages);
/* The guest has taken so many pages, at most a region, behind what it held. */
void pages_added(struct pages *pages, uint64_t count);
/* -ENOTSUP: of another amount of memory. The owner populates what is held then. */
void pages_archive(struct archive *archive, struct pages *pages);
/* Invariants 1 and 2. */
void check_pages(const struct pages *pages);
