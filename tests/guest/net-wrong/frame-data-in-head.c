/* Wrong: a frame in the head of its message. */
#include "../net-wrong.h"

WRONG_ACT("a frame in the head of its message", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .data_offset = 4 };

	return frame_outcome(&fields);
}
