/* Wrong: the table of channels is longer than any. */
#include "../net-wrong.h"

WRONG_ACT("a table of channels that is too long", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .table_bytes = 0xfffc });
}
