/* Wrong: a control message where no memory is. */
#include "../net-wrong.h"

WRONG_ACT("a control message where no memory is", CHANNEL_BROKEN)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_CONTROL, .section = NVSP_NO_SECTION },
	};

	return range_outcome(&message, 0x80000000, 28);
}
