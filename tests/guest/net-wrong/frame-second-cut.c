/* Wrong: a frame with a second behind it that is cut off. */
#include "../net-wrong.h"

WRONG_ACT("a frame with a second behind it that is cut off", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .bytes = 116, .data_bytes = 56 };

	return frame_outcome(&fields);
}
