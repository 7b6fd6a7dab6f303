/* Wrong: a query that says to be shorter than it can be. */
#include "../net-wrong.h"

WRONG_ACT("a query that says to be shorter than it can be", CHANNEL_BROKEN)
{
	const uint32_t words[7] = { RNDIS_QUERY, 8, 9, OID_LINK_SPEED, 0, 0, 0 };

	return control_outcome(words, sizeof(words));
}
