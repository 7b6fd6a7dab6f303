/* Wrong: a version of the storage protocol that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("a version of the storage protocol that is not there", VSTOR_REVISION_MISMATCH)
{
	struct vstor_packet packet = { .operation = VSTOR_QUERY_VERSION,
				       .flags = 1,
				       .body.version.version = 0x700 };
	struct vmbus_packet head;

	channel_put(&ch, PACKET_INBAND, &packet, sizeof(packet), NULL, 0);
	return channel_get(&ch, &head, &packet, sizeof(packet)) ? packet.status : BROKEN;
}
