/* Wrong: pages under a number that is used. */
#include "../bus-wrong.h"

WRONG_ACT("pages under a number that is used", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = ch.gpadl,
						   .range_bytes = 16,
						   .ranges = 1,
						   .bytes = PAGE_BYTES };

	return gpadl_outcome(&header, 1);
}
