/* Wrong: a channel let go that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("a channel let go that is not there", QUIET)
{
	const struct vmbus_relid message = { { VMBUS_RELID_RELEASED, 0 }, 77 };

	return after_message(&message, sizeof(message));
}
