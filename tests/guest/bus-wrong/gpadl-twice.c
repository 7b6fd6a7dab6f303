/* Wrong: pages under a number that is used. */
#include "../bus-wrong.h"

WRONG_ACT("pages under a number that is used", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, ch.gpadl, 16, 1, 4096, 0
	};

	return gpadl_outcome(&h, 1);
}
