/* Wrong: addresses that are no whole ones. */
#include "../net-wrong.h"

WRONG_ACT("addresses that are no whole ones", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = OID_MULTICAST_LIST, .bytes = 5, .offset = 20,
	};
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
