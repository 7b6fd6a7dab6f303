/* Wrong: a packet is given back that never came. */
#include "../net-wrong.h"

WRONG_ACT("a packet is given back that never came", CHANNEL_BROKEN)
{
	completion_of(0x1234567);
	return nvsp_words(NVSP_NDIS_VERSION, 6, 30);
}
