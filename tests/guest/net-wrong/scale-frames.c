/* Wrong: frames are scaled to channels that were never opened. */
#include "../net-wrong.h"

WRONG_ACT("scaled to channels that are not open", NVSP_SUCCESS)
{
	if (scale_outcome(&(struct scale_fields){ .queue = 1 }) != RNDIS_SUCCESS)
		return CHANNEL_BROKEN;
	return frame_outcome(&(struct frame_fields){ .bytes = 0 });
}
