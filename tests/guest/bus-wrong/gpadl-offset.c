/* Wrong: pages from within a page. */
#include "../bus-wrong.h"

WRONG_ACT("pages from within a page", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 16,
						   .ranges = 1,
						   .bytes = PAGE_BYTES,
						   .offset = 8 };

	return gpadl_outcome(&header, 1);
}
