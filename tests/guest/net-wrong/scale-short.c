/* Wrong: parameters of scaling that are cut. */
#include "../net-wrong.h"

WRONG_ACT("parameters of scaling that are cut", RNDIS_INVALID_DATA)
{
	const struct rndis_request request = {
		.oid = OID_SCALE_PARAMETERS,
		.bytes = 8,
		.offset = sizeof(struct rndis_request) - sizeof(struct rndis_head),
	};

	return request_outcome(RNDIS_SET, &request, "12345678", 8);
}
