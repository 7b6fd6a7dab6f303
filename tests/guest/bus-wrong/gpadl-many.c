/* Wrong: more lists than are allowed. */
#include "../bus-wrong.h"

WRONG_ACT("more lists than are allowed", REFUSED)
{
	struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
					     .relid = ch.relid,
					     .gpadl = 1000,
					     .range_bytes = 16,
					     .ranges = 1,
					     .bytes = PAGE_BYTES };
	uint64_t got = MADE;

	while (got == MADE && header.gpadl < 2000) {
		header.gpadl++;
		got = gpadl_outcome(&header, 1);
	}
	return header.gpadl < 2000 ? got : MADE;
}
