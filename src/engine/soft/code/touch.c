/*
 * The host is asked for pages of the code cache, in both views, and of the lists that say what is
 * in it, before they are used: sixteen at once (lib/touch.h). One by one, and the code in either
 * view, their faults are a good part of what the host spends on new code.
 *
 * A guest that goes on has all of its code made anew at once: there somebody else asks for the
 * first pages, while a processor makes code in them already.
 */
#include "code.h"
#include "lib/touch.h"

enum { TOUCHED_AT_ONCE = 64 << 10 };
/* When so little of it is left: what is made next mostly fits. */
enum { TOUCHED_BEFORE = 2 << 10 };

/* One list's part for a region: where it begins, how much of it is used, and how much there is. */
struct part { uint8_t *begin; size_t used, bytes; };

/* What is to be touched, up to an address that is a multiple of TOUCHED_AT_ONCE; 0: nothing. */
static size_t touch_part(const struct part *part, size_t *touched)
{
	const size_t begin = part->used > *touched ? part->used : *touched;
	const uintptr_t page = (uintptr_t)(part->begin + begin) & ~(uintptr_t)PAGE_OFFSET_MASK;
	size_t bytes = TOUCHED_AT_ONCE - page % TOUCHED_AT_ONCE;
	const size_t left = (size_t)((uintptr_t)part->begin + part->bytes - page);

	if (part->used + TOUCHED_BEFORE < *touched || begin >= part->bytes)
		return 0;
	if (bytes > left)
		bytes = left;
	touch_to_write((void *)page, bytes);
	*touched = (size_t)(page + bytes - (uintptr_t)part->begin);
	return bytes;
}

static void touch_lists(struct soft_engine *engine, struct code_region *region)
{
	const struct soft_budget *budget = &engine->budget;
	const uint32_t number = engine->open_region;
	const size_t blocks = budget->region_blocks * sizeof(*engine->blocks);
	const size_t maps = budget->region_maps * sizeof(*engine->maps);
	const size_t links = budget->region_links * sizeof(*engine->links);
	const size_t kept = budget->region_kept_bytes;

	touch_part(&(struct part){ (uint8_t *)engine->blocks + number * blocks,
				   region->blocks * sizeof(*engine->blocks), blocks },
		   &region->touched.blocks);
	touch_part(&(struct part){ (uint8_t *)engine->maps + number * maps,
				   region->maps * sizeof(*engine->maps), maps },
		   &region->touched.maps);
	touch_part(&(struct part){ (uint8_t *)engine->links + number * links,
				   region->links * sizeof(*engine->links), links },
		   &region->touched.links);
	touch_part(&(struct part){ engine->kept + number * kept, region->kept, kept },
		   &region->touched.kept);
}

void soft_touch_ahead(struct soft_engine *engine)
{
	struct code_region *region = soft_open_region(engine);
	const struct part code = { engine->code_write + region->start, region->used - region->start,
				   engine->budget.region_bytes };
	const size_t bytes = touch_part(&code, &region->touched.code);

	if (bytes)
		touch_to_read(engine->code_run + region->start + region->touched.code - bytes,
			      bytes);
	touch_lists(engine, region);
}

void soft_engine_touch_ahead(struct engine *opaque, size_t from, size_t end)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	const size_t start = engine->regions[0].start;

	if (!engine->goes_on)
		return;
	if (end > engine->budget.region_bytes)
		end = engine->budget.region_bytes;
	if (from >= end)
		return;
	touch_to_write(engine->code_write + start + from, end - from);
	touch_to_read(engine->code_run + start + from, end - from);
}
