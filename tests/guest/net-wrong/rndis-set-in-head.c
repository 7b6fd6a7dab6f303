/* Wrong: a value in the head of its message. */
#include "../net-wrong.h"

WRONG_ACT("a value in the head of its message", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = { .oid = OID_PACKET_FILTER, .bytes = 4, .offset = 0 };
	const uint32_t words[2] = { 1, 2 };

	return request_outcome(RNDIS_SET, &request, words, 8);
}
