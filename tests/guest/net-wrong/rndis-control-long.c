/* Wrong: a control message longer than any. */
#include "../net-wrong.h"

WRONG_ACT("a control message longer than any", CHANNEL_BROKEN)
{
	const uint32_t words[3] = { RNDIS_RESET, 12, 0 };

	return control_outcome(words, 1025);
}
