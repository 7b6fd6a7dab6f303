/* Wrong: no channels more. */
#include "../net-wrong.h"

WRONG_ACT("no channels more", NVSP_REFUSED)
{
	return nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE, 0);
}
