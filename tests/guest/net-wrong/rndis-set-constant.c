/* Wrong: a setting of what can only be asked. */
#include "../net-wrong.h"

WRONG_ACT("a setting of what can only be asked", RNDIS_NOT_SUPPORTED)
{
	const struct rndis_request request = { .oid = OID_LINK_SPEED, .bytes = 4, .offset = 20 };
	const uint32_t words[1] = { 1 };

	return request_outcome(RNDIS_SET, &request, words, 4);
}
