/* Wrong: a packet of another type. */
#include "../net-wrong.h"

WRONG_ACT("a packet of another type", CHANNEL_BROKEN)
{
	const struct nvsp_message message = { .kind = NVSP_NDIS_VERSION };

	return nvsp_packet(PACKET_TRANSFER_PAGES, &message, sizeof(message));
}
