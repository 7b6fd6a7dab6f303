/* Wrong: pages in two ranges. */
#include "../bus-wrong.h"

WRONG_ACT("pages in two ranges", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 2 * 16, 2, 4096, 0
	};

	return gpadl_outcome(&h, 1);
}
