/* Wrong: a completion that is no completion. */
#include "../net-wrong.h"

WRONG_ACT("a completion that is no completion", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_RNDIS_COMPLETE, 1, 0);
}
