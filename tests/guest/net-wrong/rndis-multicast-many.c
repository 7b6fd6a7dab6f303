/* Wrong: more addresses than there may be. */
#include "../net-wrong.h"

WRONG_ACT("more addresses than there may be", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = OID_MULTICAST_LIST, .bytes = 390, .offset = 20,
	};
	static const uint8_t bytes[400];

	return request_outcome(RNDIS_SET, &request, bytes, 400);
}
