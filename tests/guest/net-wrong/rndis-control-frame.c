/* Wrong: a frame among the control messages. */
#include "../net-wrong.h"

WRONG_ACT("a frame among the control messages", CHANNEL_BROKEN)
{
	const uint32_t words[11] = { RNDIS_PACKET, 44, 36, 0, 0, 0, 0, 0, 0, 0, 0 };

	return control_outcome(words, sizeof(words));
}
