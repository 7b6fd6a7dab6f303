/* Wrong: pages for a channel that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("pages for a channel that is not there", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = 16,
						   .gpadl = 5,
						   .range_bytes = 16,
						   .ranges = 1,
						   .bytes = PAGE_BYTES };

	return gpadl_outcome(&header, 1);
}
