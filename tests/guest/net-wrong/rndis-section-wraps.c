/* Wrong: a section whose place is beyond 32 bits. */
#include "../net-wrong.h"

WRONG_ACT("a section whose place is beyond 32 bits", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = 0xfffffffe,
			   .section_bytes = 44 },
	};

	return nvsp_outcome(&message);
}
