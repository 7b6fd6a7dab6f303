/* Wrong: a channel let go that was not taken away. */
#include "../bus-wrong.h"

WRONG_ACT("a channel let go that was not taken away", ANSWERED)
{
	const struct vmbus_relid m = { { VMBUS_RELID_RELEASED, 0 }, ch.relid };

	return after_message(&m, sizeof(m)) == QUIET ? after() : BROKEN;
}
