/* Wrong: channels beside the one. */
#include "../bus-wrong.h"

WRONG_ACT("channels beside the one", VSTOR_NOT_SUPPORTED)
{
	struct vstor_packet packet = { .operation = VSTOR_CREATE_SUB_CHANNELS, .flags = 1 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &packet, sizeof(packet), NULL, 0);
	return channel_get(&ch, &head, &packet, sizeof(packet)) ? packet.status : BROKEN;
}
