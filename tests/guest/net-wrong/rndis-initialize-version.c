/* Wrong: a version of RNDIS that is not there. */
#include "../net-wrong.h"

WRONG_ACT("a version of RNDIS that is not there", RNDIS_NOT_SUPPORTED)
{
	const uint32_t words[6] = { RNDIS_INITIALIZE, 24, 9, 2, 0, 0x4000 };

	return control_outcome(words, sizeof(words));
}
