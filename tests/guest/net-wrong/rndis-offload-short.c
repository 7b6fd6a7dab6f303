/* Wrong: offloads that are cut off. */
#include "../net-wrong.h"

WRONG_ACT("offloads that are cut off", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = (uint32_t)OID_OFFLOAD_PARAMETERS, .bytes = 4, .offset = 20,
	};
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
