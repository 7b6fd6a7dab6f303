/* Wrong: as many bytes as there are numbers. */
#include "../net-wrong.h"

WRONG_ACT("as many bytes as there are numbers", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_CONTROL, .section = 0,
			   .section_bytes = 0xffffffff },
	};

	return nvsp_outcome(&message);
}
