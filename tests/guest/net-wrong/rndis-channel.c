/* Wrong: RNDIS on a channel that is not there. */
#include "../net-wrong.h"

WRONG_ACT("RNDIS on a channel that is not there", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = 7, .section = 0, .section_bytes = 44 },
	};

	return nvsp_outcome(&message);
}
