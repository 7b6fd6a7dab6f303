/* Wrong: a frame that ends behind its section. */
#include "../net-wrong.h"

WRONG_ACT("a frame that ends behind its section", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = { .bytes = 7000 };

	return frame_outcome(&fields);
}
