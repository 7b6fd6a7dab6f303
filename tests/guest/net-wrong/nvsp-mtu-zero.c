/* Wrong: frames without a byte. */
#include "../net-wrong.h"

WRONG_ACT("frames without a byte", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_NDIS_CONFIG, 0, 0);
}
