/* Wrong: a key that is too short. */
#include "../net-wrong.h"

WRONG_ACT("a key that is too short", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .key_bytes = 16 });
}
