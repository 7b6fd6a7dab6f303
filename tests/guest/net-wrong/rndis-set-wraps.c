/* Wrong: a value whose place is beyond 32 bits. */
#include "../net-wrong.h"

WRONG_ACT("a value whose place is beyond 32 bits", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = OID_PACKET_FILTER, .bytes = 4, .offset = 0xfffffffc,
	};
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
