/* Wrong: an operation that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("an operation that is not there", VSTOR_NOT_SUPPORTED)
{
	struct vstor_packet packet = { .operation = 99, .flags = 1 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &packet, sizeof(packet), NULL, 0);
	return channel_get(&ch, &head, &packet, sizeof(packet)) ? packet.status : BROKEN;
}
