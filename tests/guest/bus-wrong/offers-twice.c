/* Wrong: asking for offers twice. */
#include "../bus-wrong.h"

WRONG_ACT("asking for offers twice", QUIET)
{
	const struct vmbus_head message = { VMBUS_REQUEST_OFFERS, 0 };

	return after_message(&message, sizeof(message));
}
