/* Wrong: a message before any contact. */
#include "../bus-wrong.h"

WRONG_ACT("a message before any contact", QUIET)
{
	const struct vmbus_head bye = { VMBUS_UNLOAD, 0 };
	const struct vmbus_head message = { VMBUS_REQUEST_OFFERS, 0 };

	bus_post_on(VMBUS_CONNECTION, &bye, sizeof(bye));
	bus_expect(VMBUS_UNLOAD_RESPONSE);
	return after_message(&message, sizeof(message));
}
