/* Wrong: more bytes than a section has. */
#include "../net-wrong.h"

WRONG_ACT("more bytes than a section has", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = 0,
			   .section_bytes = SECTION_OF_SENDING + 1 },
	};

	return nvsp_outcome(&message);
}
