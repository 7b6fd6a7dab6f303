/* Wrong: a control message without a byte. */
#include "../net-wrong.h"

WRONG_ACT("a control message without a byte", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_CONTROL, .section = NVSP_NO_SECTION,
			   .section_bytes = 0 },
	};

	return nvsp_outcome(&message);
}
