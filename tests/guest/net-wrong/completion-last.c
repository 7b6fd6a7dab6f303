/* Wrong: a packet is given back that is beyond all. */
#include "../net-wrong.h"

WRONG_ACT("a packet is given back that is beyond all", CHANNEL_BROKEN)
{
	completion_of(~0ull);
	return nvsp_words(NVSP_NDIS_VERSION, 6, 30);
}
