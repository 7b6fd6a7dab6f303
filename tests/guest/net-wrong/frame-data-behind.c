/* Wrong: a frame that ends behind its message. */
#include "../net-wrong.h"

WRONG_ACT("a frame that ends behind its message", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .data_offset = 100 };

	return frame_outcome(&fields);
}
