/*
 * Pages of the code cache are touched in the view that is written, sixteen at once, before code is
 * made there. The first fault of the other view, where the code is executed, then finds them all,
 * and the host maps those around it as well; page by page each would fault twice, once in either
 * view, and of new code those faults are a good part of what the host spends.
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
