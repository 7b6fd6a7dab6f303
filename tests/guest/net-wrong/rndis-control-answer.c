/* Wrong: an answer that was not asked for. */
#include "../net-wrong.h"

WRONG_ACT("an answer that was not asked for", CHANNEL_BROKEN)
{
	const uint32_t words[6] = { (uint32_t)RNDIS_ANSWER | RNDIS_QUERY, 24, 0, 0, 0, 0 };

	return control_outcome(words, sizeof(words));
}
