/* Wrong: a frame larger than any. */
#include "../net-wrong.h"

WRONG_ACT("a frame larger than any", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .data_bytes = 70000 };

	return frame_outcome(&fields);
}
