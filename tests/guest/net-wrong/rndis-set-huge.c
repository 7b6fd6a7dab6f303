/* Wrong: a value as long as there are numbers. */
#include "../net-wrong.h"

WRONG_ACT("a value as long as there are numbers", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = OID_PACKET_FILTER, .bytes = 0xffffffff, .offset = 20,
	};
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
