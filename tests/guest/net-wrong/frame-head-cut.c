/* Wrong: a frame that is cut off in its first words. */
#include "../net-wrong.h"

WRONG_ACT("a frame that is cut off in its first words", NVSP_INVALID_RNDIS)
{
	const uint32_t words[2] = { RNDIS_PACKET, 44 };

	return data_outcome(words, 7);
}
