/* Wrong: a list of another length than its range. */
#include "../bus-wrong.h"

WRONG_ACT("a list of another length than its range", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 24,
						   .ranges = 1,
						   .bytes = PAGE_BYTES };

	return gpadl_outcome(&header, 1);
}
