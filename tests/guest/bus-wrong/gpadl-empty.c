/* Wrong: no pages. */
#include "../bus-wrong.h"

WRONG_ACT("no pages", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 16,
						   .ranges = 1,
						   .bytes = 0 };

	return gpadl_outcome(&header, 1);
}
