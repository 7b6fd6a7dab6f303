/* Wrong: no pages. */
#include "../bus-wrong.h"

WRONG_ACT("no pages", REFUSED)
{
	const struct vmbus_gpadl_header h = { { VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 16, 1, 0, 0 };

	return gpadl_outcome(&h, 1);
}
