/* Wrong: tearing down what is not there. */
#include "../bus-wrong.h"

WRONG_ACT("tearing down what is not there", QUIET)
{
	const struct vmbus_gpadl_teardown teardown = { { VMBUS_GPADL_TEARDOWN, 0 }, ch.relid, 99 };

	return after_message(&teardown, sizeof(teardown));
}
