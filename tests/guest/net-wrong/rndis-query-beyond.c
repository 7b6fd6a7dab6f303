/* Wrong: a query that says to be longer than it is. */
#include "../net-wrong.h"

WRONG_ACT("a query that says to be longer than it is", CHANNEL_BROKEN)
{
	const uint32_t words[7] = { RNDIS_QUERY, 1000, 9, OID_LINK_SPEED, 0, 0, 0 };

	return control_outcome(words, sizeof(words));
}
