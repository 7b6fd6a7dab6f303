/* Wrong: closing a channel twice. */
#include "../bus-wrong.h"

WRONG_ACT("closing a channel twice", QUIET)
{
	const struct vmbus_relid message = { { VMBUS_CLOSE, 0 }, ch.relid };

	channel_close(&ch);
	return after_message(&message, sizeof(message));
}
