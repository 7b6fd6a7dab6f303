/* Wrong: a message that is cut off. */
#include "../net-wrong.h"

WRONG_ACT("a message that is cut off", CHANNEL_BROKEN)
{
	const struct nvsp_message message = { .kind = NVSP_NDIS_VERSION };

	return nvsp_packet(PACKET_INBAND, &message, NVSP_MESSAGE_BYTES - 8);
}
