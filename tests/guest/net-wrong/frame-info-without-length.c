/* Wrong: something of no length, which would be read for ever. */
#include "../net-wrong.h"

WRONG_ACT("something of no length, which would be read for ever", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .info_bytes = 16 };

	return frame_outcome(&fields);
}
