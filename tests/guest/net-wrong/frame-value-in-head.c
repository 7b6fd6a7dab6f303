/* Wrong: a value in the head of what it is of. */
#include "../net-wrong.h"

WRONG_ACT("a value in the head of what it is of", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = {
		.info = { .bytes = 16, .kind = RNDIS_INFO_VLAN, .offset = 4 },
	};

	return frame_outcome(&fields);
}
