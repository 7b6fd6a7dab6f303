/* Wrong: another path before there was one. */
#include "../net-wrong.h"

WRONG_ACT("another path before there was one", CHANNEL_BROKEN)
{
	net_reopen();
	net_init(NVSP_2, NVSP_2);
	return nvsp_words(NVSP_SWITCH_DATA_PATH, 0, 0);
}
