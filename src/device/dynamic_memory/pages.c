/* See pages.h. A page's place in the map is its frame: its number in RAM. */
#include "pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/check.h"
#include "lib/speculation.h"

enum { WORD_BITS = 64 };
#define HIGH_GFN (GUEST_HIGH_GPA / GUEST_PAGE_BYTES)

static uint64_t low_frames(const struct pages *pages)
{
	return pages->memory->low_bytes / GUEST_PAGE_BYTES;
}

uint64_t pages_gfn(const struct pages *pages, uint64_t frame)
{
	uint64_t low = low_frames(pages);

	return frame < low ? frame : HIGH_GFN + (frame - low);
}

/*
 * The frame of a gfn, when the guest holds `count` pages from there on without a gap; else
 * UINT64_MAX.
 */
static uint64_t frame_of(const struct pages *pages, uint64_t gfn, uint64_t count)
{
	const uint64_t low = low_frames(pages);

	if (gfn < low)
		return count <= low - gfn ? gfn : UINT64_MAX;
	if (gfn < HIGH_GFN || gfn - HIGH_GFN > pages->held - low ||
	    count > pages->held - low - (gfn - HIGH_GFN))
		return UINT64_MAX;
	return low + (gfn - HIGH_GFN);
}

static uint64_t *word_of(const struct pages *pages, uint64_t frame)
{
	return &pages->map[speculation_bound(frame, pages->frames) / WORD_BITS];
}

static bool is_inflated(const struct pages *pages, uint64_t frame)
{
	return *word_of(pages, frame) >> (frame % WORD_BITS) & 1;
}

static uint64_t frames_in_map(const struct pages *pages)
{
	uint64_t count = 0;

	for (size_t n = 0; n < pages->map_bytes / sizeof(pages->map[0]); n++)
		count += (unsigned)__builtin_popcountll(pages->map[n]);
	return count;
}

/* No page from here on is in the map. */
static bool is_empty_from(const struct pages *pages, uint64_t frame)
{
	uint64_t word = frame / WORD_BITS;

	if (frame % WORD_BITS && pages->map[word++] >> (frame % WORD_BITS))
		return false;
	for (; word < pages->map_bytes / sizeof(pages->map[0]); word++)
		if (pages->map[word])
			return false;
	return true;
}

void check_pages(const struct pages *pages)
{
	assert(frames_in_map(pages) == pages->inflated && pages->inflated <= pages->held);
	assert(pages->start <= pages->held && pages->held <= pages->frames &&
	       is_empty_from(pages, pages->held));
	assert(pages->held * GUEST_PAGE_BYTES <= guest_memory_populated_bytes(pages->memory));
}

int pages_make(struct pages *pages, const struct guest_memory *memory, uint64_t region_bytes)
{
	assert(region_bytes && region_bytes % GUEST_PAGE_BYTES == 0);
	*pages = (struct pages){ .memory = memory,
				 .region = region_bytes / GUEST_PAGE_BYTES,
				 .frames = memory->ram_bytes / GUEST_PAGE_BYTES };
	pages->start = pages->held = guest_memory_populated_bytes(memory) / GUEST_PAGE_BYTES;
	pages->map_bytes = (pages->frames + WORD_BITS - 1) / WORD_BITS * sizeof(pages->map[0]);
	pages->map = calloc(1, pages->map_bytes);
	return pages->map ? 0 : -ENOMEM;
}

void pages_free(struct pages *pages) { free(pages->map); }

/* The bits of a word of the map from `frame` on, at most `count`. */
static uint64_t bits_from(uint64_t frame, uint64_t count)
{
	const uint64_t first = frame % WORD_BITS;

	return (count < WORD_BITS ? (1ull << count) - 1 : ~0ull) << first;
}

static bool is_any_inflated(const struct pages *pages, uint64_t frame, uint64_t count)
{
	uint64_t step;

	for (; count; frame += step, count -= step) {
		step = WORD_BITS - frame % WORD_BITS;
		step = step < count ? step : count;
		if (*word_of(pages, frame) & bits_from(frame, step))
			return true;
	}
	return false;
}

int pages_inflate(struct pages *pages, uint64_t gfn, uint64_t count)
{
	uint64_t frame = frame_of(pages, gfn, count);
	uint64_t step;

	if (frame == UINT64_MAX || is_any_inflated(pages, frame, count))
		return -EBADMSG;
	pages->inflated += count;
	for (; count; frame += step, count -= step) {
		step = WORD_BITS - frame % WORD_BITS;
		step = step < count ? step : count;
		*word_of(pages, frame) |= bits_from(frame, step);
	}
	CHECK(check_pages(pages));
	return 0;
}

uint64_t pages_deflate(struct pages *pages, uint64_t most, uint64_t *ret_gfn)
{
	uint64_t count = 0;
	uint64_t first;

	assert(pages->inflated && most);
	while (!is_inflated(pages, pages->search % pages->frames))
		pages->search++;
	first = pages->search % pages->frames;
	*ret_gfn = pages_gfn(pages, first);
	while (count < most && first + count < pages->frames &&
	       pages_gfn(pages, first + count) - *ret_gfn == count &&
	       is_inflated(pages, first + count)) {
		*word_of(pages, first + count) &= ~(1ull << ((first + count) % WORD_BITS));
		pages->inflated--;
		count++;
	}
	CHECK(check_pages(pages));
	return count;
}

void pages_deflate_all(struct pages *pages)
{
	pages->inflated = 0;
	memset(pages->map, 0, pages->map_bytes);
}

bool pages_can_add(const struct pages *pages)
{
	return (pages->held - low_frames(pages)) % pages->region == 0 &&
	       pages->frames - pages->held >= pages->region;
}

void pages_added(struct pages *pages, uint64_t count)
{
	assert(count <= pages->region && count <= pages->frames - pages->held);
	pages->held += count;
	CHECK(check_pages(pages));
}

void pages_archive(struct archive *archive, struct pages *pages)
{
	uint64_t frames = pages->frames;
	uint64_t start = pages->start;

	archive_u64(archive, &frames);
	archive_u64(archive, &start);
	if (!archive->error && (frames != pages->frames || start != pages->start))
		archive_fail(archive, -ENOTSUP, "it has another amount of memory");
	archive_u64(archive, &pages->held);
	archive_check(archive, pages->held >= pages->start && pages->held <= pages->frames);
	archive_u64s(archive, pages->map, pages->map_bytes / sizeof(pages->map[0]));
	if (!archive->loading || archive->error)
		return;
	pages->inflated = frames_in_map(pages);
	archive_check(archive, is_empty_from(pages, pages->held));
}
