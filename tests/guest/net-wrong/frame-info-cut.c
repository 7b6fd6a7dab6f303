/* Wrong: what is said of a frame is cut off. */
#include "../net-wrong.h"

WRONG_ACT("what is said of a frame is cut off", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = {
		.info = { .bytes = 16, .kind = RNDIS_INFO_VLAN, .offset = 12 }, .info_bytes = 8,
	};

	return frame_outcome(&fields);
}
