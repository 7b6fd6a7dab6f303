/* Wrong: something that ends behind all that is said. */
#include "../net-wrong.h"

WRONG_ACT("something that ends behind all that is said", NVSP_INVALID_RNDIS)
{
	const struct frame_fields fields = {
		.info = { .bytes = 400, .kind = RNDIS_INFO_VLAN, .offset = 12 },
	};

	return frame_outcome(&fields);
}
