/* Wrong: a message after no version was agreed upon. */
#include "../net-wrong.h"

WRONG_ACT("a message after no version was agreed upon", CHANNEL_BROKEN)
{
	net_reopen();
	net_init(1, 1);
	return nvsp_words(NVSP_NDIS_VERSION, 6, 30);
}
