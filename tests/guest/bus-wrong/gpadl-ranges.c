/* Wrong: pages in two ranges. */
#include "../bus-wrong.h"

WRONG_ACT("pages in two ranges", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 2 * 16,
						   .ranges = 2,
						   .bytes = PAGE_BYTES };

	return gpadl_outcome(&header, 1);
}
