/* Wrong: a message before a version was agreed upon. */
#include "../net-wrong.h"

WRONG_ACT("a message before a version was agreed upon", CHANNEL_BROKEN)
{
	net_reopen();
	return nvsp_words(NVSP_NDIS_VERSION, 6, 30);
}
