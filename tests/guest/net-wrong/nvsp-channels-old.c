/* Wrong: more channels before there were any. */
#include "../net-wrong.h"

WRONG_ACT("more channels before there were any", CHANNEL_BROKEN)
{
	net_reopen();
	net_init(NVSP_4, NVSP_4);
	return nvsp_words(NVSP_SUBCHANNELS, NVSP_SUBCHANNELS_ALLOCATE, 1);
}
