/* Wrong: pages from within a page. */
#include "../bus-wrong.h"

WRONG_ACT("pages from within a page", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 16, 1, 4096, 8
	};

	return gpadl_outcome(&h, 1);
}
