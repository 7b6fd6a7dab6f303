/* Wrong: what is said of a frame is beyond 32 bits. */
#include "../net-wrong.h"

WRONG_ACT("what is said of a frame is beyond 32 bits", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .info_offset = 0xfffffff0, .info_bytes = 16 };

	return frame_outcome(&fields);
}
