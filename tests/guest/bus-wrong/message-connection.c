/* Wrong: a message on a connection that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("a message on a connection that is not there", 0x12)
{
	const struct vmbus_head message = { VMBUS_UNLOAD, 0 };

	return bus_post_on(3, &message, sizeof(message));
}
