/* Wrong: more pages for what was not begun. */
#include "../bus-wrong.h"

WRONG_ACT("more pages for what was not begun", QUIET)
{
	struct {
		struct vmbus_gpadl_body header;
		uint64_t gfn;
	} message = { { { VMBUS_GPADL_BODY, 0 }, 0, 99 }, 1 };

	return after_message(&message, sizeof(message));
}
