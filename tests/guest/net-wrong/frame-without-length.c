/* Wrong: a frame of no length, which would be read for ever. */
#include "../net-wrong.h"

WRONG_ACT("a frame of no length, which would be read for ever", NVSP_INVALID_RNDIS)
{
	const uint32_t words[11] = { RNDIS_PACKET, 0, 36, 60, 0, 0, 0, 0, 0, 0, 0 };

	return data_outcome(words, sizeof(words));
}
