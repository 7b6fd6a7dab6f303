/* Wrong: more pages than are allowed. */
#include "../bus-wrong.h"

WRONG_ACT("more pages than are allowed", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 0,
						   .ranges = 1,
						   .bytes = 0xfffff000 };

	return gpadl_outcome(&header, 1);
}
