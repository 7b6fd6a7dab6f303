/* Wrong: a control message of a kind that is not there. */
#include "../net-wrong.h"

WRONG_ACT("a control message of a kind that is not there", CHANNEL_BROKEN)
{
	const uint32_t words[3] = { 99, 12, 0 };

	return control_outcome(words, sizeof(words));
}
