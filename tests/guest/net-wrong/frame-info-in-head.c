/* Wrong: what is said of a frame is in its head. */
#include "../net-wrong.h"

WRONG_ACT("what is said of a frame is in its head", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .info_offset = 8, .info_bytes = 16 };

	return frame_outcome(&fields);
}
