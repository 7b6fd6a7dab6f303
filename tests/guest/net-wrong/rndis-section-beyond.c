/* Wrong: a section beyond the buffer. */
#include "../net-wrong.h"

WRONG_ACT("a section beyond the buffer", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = 100000, .section_bytes = 44 },
	};

	return nvsp_outcome(&message);
}
