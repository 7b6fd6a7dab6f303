/* Wrong: a query of a card that was halted. */
#include "../net-wrong.h"

WRONG_ACT("a query of a card that was halted", CHANNEL_BROKEN)
{
	const struct rndis_request request = { .oid = OID_LINK_SPEED };

	net_halt();
	return request_outcome(RNDIS_QUERY, &request, NULL, 0);
}
