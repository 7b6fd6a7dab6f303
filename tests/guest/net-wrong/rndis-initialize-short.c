/* Wrong: a first word that is cut off. */
#include "../net-wrong.h"

WRONG_ACT("a first word that is cut off", CHANNEL_BROKEN)
{
	const uint32_t words[3] = { RNDIS_INITIALIZE, 12, 9 };

	return control_outcome(words, sizeof(words));
}
