/* Wrong: a device of its own, as the host would announce it. */
#include "../net-wrong.h"

WRONG_ACT("a device of its own, as the host would announce it", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_VF_ASSOCIATION, 1, 1);
}
