/* Wrong: half a page. */
#include "../bus-wrong.h"

WRONG_ACT("half a page", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 16, 1, 2048, 0
	};

	return gpadl_outcome(&h, 1);
}
