/* Wrong: a connection asked for in a message that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a connection asked for in a message that is too short", QUIET)
{
	const struct vmbus_relid message = { { VMBUS_TL_CONNECT, 0 }, 0 };

	return after_message(&message, sizeof(message));
}
