/* Wrong: pages in no range. */
#include "../bus-wrong.h"

WRONG_ACT("pages in no range", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 16, 0, 4096, 0
	};

	return gpadl_outcome(&h, 1);
}
