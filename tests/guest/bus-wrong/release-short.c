/* Wrong: a channel let go in a message that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a channel let go in a message that is too short", QUIET)
{
	const struct vmbus_head message = { VMBUS_RELID_RELEASED, 0 };

	return after_message(&message, sizeof(message));
}
