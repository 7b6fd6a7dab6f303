/* Wrong: channels beside the one. */
#include "../bus-wrong.h"

WRONG_ACT("channels beside the one", VSTOR_NOT_SUPPORTED)
{
	struct vstor_packet p = { .operation = VSTOR_CREATE_SUB_CHANNELS, .flags = 1 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &p, sizeof(p), NULL, 0);
	return channel_get(&ch, &head, &p, sizeof(p)) ? p.status : BROKEN;
}
