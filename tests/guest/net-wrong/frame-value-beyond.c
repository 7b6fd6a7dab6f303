/* Wrong: a value behind what it is of. */
#include "../net-wrong.h"

WRONG_ACT("a value behind what it is of", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = {
		.info = { .bytes = 16, .kind = RNDIS_INFO_VLAN, .offset = 17 },
	};

	return frame_outcome(&fields);
}
