/* Wrong: the key lies behind the request. */
#include "../net-wrong.h"

WRONG_ACT("a key behind the request", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .key_offset = 0xfffffff0 });
}
