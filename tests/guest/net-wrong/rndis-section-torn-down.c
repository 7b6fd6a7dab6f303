/* Wrong: a section whose pages were taken back. */
#include "../net-wrong.h"

WRONG_ACT("a section whose pages were taken back", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = 0, .section_bytes = 44 },
	};

	bus_teardown(SEND_GPADL, net.relid);
	return nvsp_outcome(&message);
}
