/* Wrong: more pages than are allowed. */
#include "../bus-wrong.h"

WRONG_ACT("more pages than are allowed", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 0, 1, 0xfffff000, 0
	};

	return gpadl_outcome(&h, 1);
}
