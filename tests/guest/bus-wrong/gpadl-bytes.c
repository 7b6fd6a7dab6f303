/* Wrong: a list of another length than its range. */
#include "../bus-wrong.h"

WRONG_ACT("a list of another length than its range", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 24, 1, 4096, 0
	};

	return gpadl_outcome(&h, 1);
}
