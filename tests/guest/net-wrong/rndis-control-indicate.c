/* Wrong: an indication, which only the host makes. */
#include "../net-wrong.h"

WRONG_ACT("an indication, which only the host makes", CHANNEL_BROKEN)
{
	const uint32_t words[5] = { RNDIS_INDICATE, 20, RNDIS_MEDIA_CONNECT, 0, 0 };

	return control_outcome(words, sizeof(words));
}
