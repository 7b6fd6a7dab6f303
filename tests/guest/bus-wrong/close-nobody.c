/* Wrong: closing a channel that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("closing a channel that is not there", QUIET)
{
	const struct vmbus_relid message = { { VMBUS_CLOSE, 0 }, 16 };

	return after_message(&message, sizeof(message));
}
