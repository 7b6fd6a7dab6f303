/* Wrong: another processor for a closed channel. */
#include "../bus-wrong.h"

WRONG_ACT("another processor for a closed channel", 1)
{
	const struct vmbus_modify modify = { { VMBUS_MODIFY_CHANNEL, 0 }, ch.relid, 0 };
	const struct vmbus_modify_response *response;

	channel_close(&ch);
	bus_post_on(VMBUS_CONNECTION, &modify, sizeof(modify));
	response = bus_expect(VMBUS_MODIFY_CHANNEL_RESPONSE);
	return response && response->status;
}
