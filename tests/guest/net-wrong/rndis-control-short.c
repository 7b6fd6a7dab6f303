/* Wrong: a control message that is cut off in its head. */
#include "../net-wrong.h"

WRONG_ACT("a control message that is cut off in its head", CHANNEL_BROKEN)
{
	const uint32_t words[2] = { RNDIS_RESET, 12 };

	return control_outcome(words, 7);
}
