/* Wrong: a frame smaller than Ethernet's head. */
#include "../net-wrong.h"

WRONG_ACT("a frame smaller than Ethernet's head", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .data_bytes = 13 };

	return frame_outcome(&fields);
}
