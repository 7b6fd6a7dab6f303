/* Wrong: a packet without a message. */
#include "../net-wrong.h"

WRONG_ACT("a packet without a message", CHANNEL_BROKEN)
{
	const struct nvsp_message message = { .kind = NVSP_NDIS_VERSION };

	return nvsp_packet(PACKET_INBAND, &message, 0);
}
