/* Wrong: a frame shall come by a channel that there is not. */
#include "../net-wrong.h"

WRONG_ACT("a channel to scale to that there is not", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .queue = 7 });
}
