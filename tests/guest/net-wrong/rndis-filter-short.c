/* Wrong: a filter of three bytes. */
#include "../net-wrong.h"

WRONG_ACT("a filter of three bytes", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = { .oid = OID_PACKET_FILTER, .bytes = 3, .offset = 20 };
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
