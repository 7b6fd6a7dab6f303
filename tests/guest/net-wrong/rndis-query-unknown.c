/* Wrong: a query about what is not there. */
#include "../net-wrong.h"

WRONG_ACT("a query about what is not there", RNDIS_NOT_SUPPORTED)
{
	const struct rndis_request request = { .oid = 0x12345678 };

	return request_outcome(RNDIS_QUERY, &request, NULL, 0);
}
