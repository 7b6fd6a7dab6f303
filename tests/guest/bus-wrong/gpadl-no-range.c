/* Wrong: pages in no range. */
#include "../bus-wrong.h"

WRONG_ACT("pages in no range", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 16,
						   .ranges = 0,
						   .bytes = PAGE_BYTES };

	return gpadl_outcome(&header, 1);
}
