/* Wrong: what is no frame among frames. */
#include "../net-wrong.h"

WRONG_ACT("what is no frame among frames", NVSP_INVALID_RNDIS)
{
	const uint32_t words[7] = { RNDIS_QUERY, 28, 9, OID_LINK_SPEED, 0, 0, 0 };

	return data_outcome(words, sizeof(words));
}
