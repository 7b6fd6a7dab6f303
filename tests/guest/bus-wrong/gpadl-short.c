/* Wrong: a list of pages that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a list of pages that is too short", QUIET)
{
	const struct vmbus_gpadl_teardown teardown = { { VMBUS_GPADL_HEADER, 0 }, ch.relid, 5 };

	return after_message(&teardown, sizeof(teardown));
}
