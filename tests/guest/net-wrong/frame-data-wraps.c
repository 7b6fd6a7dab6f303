/* Wrong: a frame whose place is beyond 32 bits. */
#include "../net-wrong.h"

WRONG_ACT("a frame whose place is beyond 32 bits", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .data_offset = 0xfffffff8 };

	return frame_outcome(&fields);
}
