/* Wrong: more channels a second time. */
#include "../net-wrong.h"

WRONG_ACT("more channels a second time", NVSP_REFUSED)
{
	if (nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE, 0xffffffff) != NVSP_SUCCESS)
		return CHANNEL_BROKEN;
	return nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE, 1);
}
