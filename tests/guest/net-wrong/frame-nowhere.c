/* Wrong: a frame where no memory is. */
#include "../net-wrong.h"

WRONG_ACT("a frame where no memory is", NVSP_REFUSED)
{
	const struct nvsp_message message = {
		.kind = NVSP_RNDIS,
		.rndis = { .channel = NVSP_CHANNEL_DATA, .section = NVSP_NO_SECTION },
	};

	return range_outcome(&message, 0x80000000, 104);
}
