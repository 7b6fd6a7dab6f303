/* Wrong: a setting of what is not there. */
#include "../net-wrong.h"

WRONG_ACT("a setting of what is not there", RNDIS_NOT_SUPPORTED)
{
	const struct rndis_request request = { .oid = 0x12345678, .offset = 20 };

	return request_outcome(RNDIS_SET, &request, NULL, 0);
}
