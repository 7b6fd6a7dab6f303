/* Wrong: another thing than more channels is asked for. */
#include "../net-wrong.h"

WRONG_ACT("another thing than more channels", NVSP_REFUSED)
{
	return nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE + 1, 1);
}
