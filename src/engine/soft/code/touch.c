/*
 * The host is asked for pages of the code cache, in both views, and of the lists that say what is
 * in it, before they are used: sixteen at once (lib/touch.h). One by one, and the code in either
 * view, their faults are a good part of what the host spends on new code. Where much code is made
 * they are large pages: what there was of one already, little as it is, is copied.
 *
 * How much is made begins anew in a machine that was idle, and in one that was forked: neither may
 * take megabytes for the few blocks that it still makes.
 *
 * A guest that goes on has all of its code made anew at once: there somebody else asks for the
 * first pages, large ones, while a processor makes code in them already, or sleeps still. Before it
 * runs everybody would wait for that.
 */
#include <assert.h>

#include "code.h"
#include "lib/touch.h"

enum { TOUCHED_AT_ONCE = 64 << 10 };
/* When so little of it is left: what is made next mostly fits. */
enum { TOUCHED_BEFORE = 2 << 10 };
/* By who makes code ahead, who asks for them without the lock: so much that nobody else has to. */
enum { TOUCHED_BESIDE_BEFORE = 40 << 10, PARTS = 5 };
/* So much code in pieces before there are large pages: more than what an idle machine needs. */
enum { PIECES_BYTES = 1 << 20 };
/* Of a guest that goes on: as much code as most have until they have settled. */
enum { ASKED_AHEAD_BYTES = 4 << 20 };

/*
 * One list's part for a region: where it begins, how much of it is used, and how much there is.
 * list: where that begins, which may be in the middle of a large page that is somebody else's.
 */
struct part { uint8_t *list, *begin; size_t used, bytes; bool is_short; };

/* What is asked for when the lock is given up, by the address at which it is written. */
struct touches {
	struct { uint8_t *at; size_t bytes; } piece[PARTS];
	unsigned count;
};

static bool makes_much(const struct soft_engine *engine)
{
	return engine->touched_bytes >= PIECES_BYTES;
}

void soft_touch_little(struct soft_engine *engine) { engine->touched_bytes = 0; }

static uint8_t *round_down(const void *at, uintptr_t bytes)
{
	return (uint8_t *)((uintptr_t)at & ~(bytes - 1));
}

/* Who comes first in a guest that goes on waits for none: somebody else asks for them. */
static bool is_asked_ahead(struct soft_engine *engine)
{
	const struct code_region *first = &engine->regions[0];

	return engine->goes_on && !engine->open_region &&
	       first->used - first->start < ASKED_AHEAD_BYTES;
}

/* Where there is none pieces follow, before another is asked for. */
static bool find_large(struct soft_engine *engine, void *at)
{
	if (!makes_much(engine) || is_asked_ahead(engine))
		return false;
	if (touch_large(at))
		return true;
	soft_touch_little(engine);
	return false;
}

static void ask(struct touches *later, uint8_t *at, size_t bytes)
{
	if (!later) {
		touch_to_write(at, bytes);
		return;
	}
	assert(later->count < PARTS);
	later->piece[later->count].at = at;
	later->piece[later->count++].bytes = bytes;
}

/* What is touched, up to an address that is a multiple of as much; NULL, where nothing is. */
static const uint8_t *touch_part(struct soft_engine *engine, const struct part *part,
				 size_t *touched, struct touches *later)
{
	const size_t before = later ? TOUCHED_BESIDE_BEFORE : TOUCHED_BEFORE;
	const size_t at = part->used > *touched ? part->used : *touched;
	uint8_t *large = round_down(part->begin + at, TOUCH_LARGE_BYTES);
	uint8_t *page = round_down(part->begin + at, PAGE_BYTES);
	uint8_t *end = round_down(page, TOUCHED_AT_ONCE) + TOUCHED_AT_ONCE;

	if (part->used + before < *touched || at >= part->bytes)
		return NULL;
	if (!later && !part->is_short && large >= part->list && find_large(engine, large)) {
		end = large + TOUCH_LARGE_BYTES;
	} else {
		if (end > part->begin + part->bytes)
			end = part->begin + part->bytes;
		ask(later, page, (size_t)(end - page));
	}
	*touched = (size_t)(end - part->begin);
	return page;
}

/* Of a list that regions have a part of each. */
static void touch_list(struct soft_engine *engine, void *list, struct part part, size_t *touched,
		       struct touches *later)
{
	part.list = list;
	part.begin = part.list + engine->open_region * part.bytes;
	touch_part(engine, &part, touched, later);
}

static void touch_lists(struct soft_engine *engine, struct code_region *region,
			struct touches *later)
{
	const struct soft_budget *budget = &engine->budget;

	touch_list(engine, engine->blocks,
		   (struct part){ .used = region->blocks * sizeof(*engine->blocks),
				  .bytes = budget->region_blocks * sizeof(*engine->blocks) },
		   &region->touched.blocks, later);
	touch_list(engine, engine->maps,
		   (struct part){ .used = region->maps * sizeof(*engine->maps),
				  .bytes = budget->region_maps * sizeof(*engine->maps) },
		   &region->touched.maps, later);
	touch_list(engine, engine->links,
		   (struct part){ .used = region->links * sizeof(*engine->links),
				  .bytes = budget->region_links * sizeof(*engine->links),
				  .is_short = true },
		   &region->touched.links, later);
	touch_list(engine, engine->kept,
		   (struct part){ .used = region->kept, .bytes = budget->region_kept_bytes },
		   &region->touched.kept, later);
}

/* Of the hash what lies in whole large pages; how many blocks will be found by it is known now. */
static void touch_hash(struct soft_engine *engine)
{
	uint8_t *end = (uint8_t *)(engine->history + HISTORY_ENTRIES);
	uint8_t *at = round_down((uint8_t *)engine->hash + TOUCH_LARGE_BYTES - 1,
				 TOUCH_LARGE_BYTES);

	for (; at < end && !engine->goes_on; at += TOUCH_LARGE_BYTES)
		find_large(engine, at);
}

static void touch_code(struct soft_engine *engine, struct code_region *region,
		       struct touches *later)
{
	const struct part code = { .list = engine->code_write,
				   .begin = engine->code_write + region->start,
				   .used = region->used - region->start,
				   .bytes = engine->budget.region_bytes };
	const bool made_much = makes_much(engine);
	const uint8_t *begin = touch_part(engine, &code, &region->touched.code, later);
	const uint8_t *end = code.begin + region->touched.code;

	if (!begin)
		return;
	if (!later)
		touch_to_read(engine->code_run + (begin - engine->code_write),
			      (size_t)(end - begin));
	if (made_much)
		return;
	engine->touched_bytes += (size_t)(end - begin);
	if (makes_much(engine))
		touch_hash(engine);
}

void soft_touch_ahead(struct soft_engine *engine)
{
	struct code_region *region = soft_open_region(engine);

	touch_code(engine, region, NULL);
	touch_lists(engine, region, NULL);
}

static void touch_piece(const struct soft_engine *engine, uint8_t *at, size_t bytes)
{
	const size_t in_code = (size_t)(at - engine->code_write);

	touch_to_write(at, bytes);
	if (in_code < engine->code_bytes)
		touch_to_read(engine->code_run + in_code, bytes);
}

void soft_touch_beside(struct soft_engine *engine)
{
	struct touches later = { .count = 0 };
	struct code_region *region;

	soft_acquire(&engine->lock);
	region = soft_open_region(engine);
	if (is_asked_ahead(engine)) {
		touch_code(engine, region, &later);
		touch_lists(engine, region, &later);
	}
	soft_release(&engine->lock);
	for (unsigned n = 0; n < later.count; n++)
		touch_piece(engine, later.piece[n].at, later.piece[n].bytes);
}

void soft_engine_touch_ahead(struct engine *opaque, size_t from, size_t end)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	const size_t start = engine->regions[0].start;
	uint8_t *large = round_down(engine->code_write + start + from, TOUCH_LARGE_BYTES);

	if (!engine->goes_on)
		return;
	if (!from) /* as the hash of shadow pages (mmu/spaces.c) */
		touch_to_write(engine->slot_buckets,
			       SLOT_BUCKETS * sizeof(*engine->slot_buckets));
	if (end > engine->budget.region_bytes)
		end = engine->budget.region_bytes;
	if (from >= end)
		return;
	/* with notes its memory does not begin at a large page */
	for (; large < engine->code_write + start + end && !engine->notes;
	     large += TOUCH_LARGE_BYTES)
		touch_large(large);
	touch_to_write(engine->code_write + start + from, end - from);
	touch_to_read(engine->code_run + start + from, end - from);
}
