/* Wrong: pages for a channel that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("pages for a channel that is not there", REFUSED)
{
	const struct vmbus_gpadl_header h = { { VMBUS_GPADL_HEADER, 0 }, 9, 5, 16, 1, 4096, 0 };

	return gpadl_outcome(&h, 1);
}
