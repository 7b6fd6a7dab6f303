/* Wrong: more to say of a frame than there is room for. */
#include "../net-wrong.h"

WRONG_ACT("more to say of a frame than there is room for", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .info_bytes = 257 };

	return frame_outcome(&fields);
}
