/*
 * Pages of the code cache are touched in the view that is written, sixteen at once, before code is
 * made there. The first fault of the other view, where the code is executed, then finds them all,
 * and the host maps those around it as well; page by page each would fault twice, once in either
 * view, and of new code those faults are a good part of what the host spends.
 *
 * A guest that goes on has all of its code made anew at once: there somebody else touches the first
 * pages in both views, while a processor makes code in them already.
 */
#include "code.h"

enum { TOUCHED_AT_ONCE = 64 << 10 }; /* what Linux maps around a fault, by default */

/* From there on, to where the host's next such part of the executed view begins. */
static size_t end_of_part(const struct soft_engine *engine, size_t offset)
{
	const uintptr_t at = (uintptr_t)engine->code_run + offset;

	return offset + TOUCHED_AT_ONCE - at % TOUCHED_AT_ONCE;
}

void soft_touch_ahead(struct soft_engine *engine)
{
	struct code_region *region = soft_open_region(engine);
	const size_t end = region->start + engine->budget.region_bytes;
	size_t part_end;

	if (region->used < region->touched || region->touched >= end)
		return;
	part_end = end_of_part(engine, region->used);
	if (part_end > end)
		part_end = end;
	for (size_t at = region->used; at < part_end; at += PAGE_BYTES)
		*(volatile uint8_t *)(engine->code_write + at) = 0;
	region->touched = part_end;
}

/* As a write: in memory that others write meanwhile it changes nothing. */
static void touch(uint8_t *at) { __asm__ volatile("lock orb $0, %0" : "+m"(*at)); }

void soft_engine_touch_ahead(struct engine *opaque, size_t from, size_t end)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	const size_t start = engine->regions[0].start;
	size_t part_end;

	if (!engine->goes_on)
		return;
	if (end > engine->budget.region_bytes)
		end = engine->budget.region_bytes;
	for (size_t part = start + from; part < start + end; part = part_end) {
		part_end = end_of_part(engine, part);
		if (part_end > start + end)
			part_end = start + end;
		for (size_t at = part; at < part_end; at += PAGE_BYTES)
			touch(engine->code_write + at);
		for (size_t at = part; at < part_end; at += PAGE_BYTES)
			(void)*(const volatile uint8_t *)(engine->code_run + at);
	}
}
