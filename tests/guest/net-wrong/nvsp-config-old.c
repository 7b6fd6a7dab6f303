/* Wrong: a configuration before there was one. */
#include "../net-wrong.h"

WRONG_ACT("a configuration before there was one", CHANNEL_BROKEN)
{
	net_reopen();
	net_init(NVSP_1, NVSP_1);
	return nvsp_words(NVSP_NDIS_CONFIG, 1514, 0);
}
