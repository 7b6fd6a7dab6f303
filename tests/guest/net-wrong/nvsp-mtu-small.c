/* Wrong: frames smaller than IP's. */
#include "../net-wrong.h"

WRONG_ACT("frames smaller than IP's", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_NDIS_CONFIG, 80, 0);
}
