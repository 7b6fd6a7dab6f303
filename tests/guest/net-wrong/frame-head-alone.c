/* Wrong: a frame that ends in its head. */
#include "../net-wrong.h"

WRONG_ACT("a frame that ends in its head", NVSP_INVALID_RNDIS)
{
	const uint32_t words[11] = { RNDIS_PACKET, 40, 36, 60, 0, 0, 0, 0, 0, 0, 0 };

	return data_outcome(words, sizeof(words));
}
