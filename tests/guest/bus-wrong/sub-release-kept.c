/* Wrong: a further channel let go that was not taken away. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel let go that was not taken away", 0)
{
	struct vmbus_relid message = { { VMBUS_RELID_RELEASED, 0 }, 0 };

	sub_open();
	message.relid = sub.relid;
	if (after_message(&message, sizeof(message)) != QUIET)
		return BROKEN;
	return sub_operation(VSTOR_EXECUTE);
}
