/* Wrong: a contact that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a contact that is too short", QUIET)
{
	const struct vmbus_head message = { VMBUS_INITIATE_CONTACT, 0 };

	return after_message(&message, sizeof(message));
}
