/* Wrong: a message that only the host sends. */
#include "../net-wrong.h"

WRONG_ACT("a message that only the host sends", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_INIT_COMPLETE, 0, 0);
}
