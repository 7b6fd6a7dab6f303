/* Wrong: a channel let go that was not taken away. */
#include "../bus-wrong.h"

WRONG_ACT("a channel let go that was not taken away", ANSWERED)
{
	const struct vmbus_relid message = { { VMBUS_RELID_RELEASED, 0 }, ch.relid };

	return after_message(&message, sizeof(message)) == QUIET ? after() : BROKEN;
}
