/* Wrong: more channels than one. */
#include "../net-wrong.h"

WRONG_ACT("more channels than one", NVSP_REFUSED)
{
	return nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE, 0xffffffff);
}
