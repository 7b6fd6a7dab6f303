/* Wrong: the table of channels lies behind the request. */
#include "../net-wrong.h"

WRONG_ACT("a table of channels behind the request", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .table_offset = 0xfffffff0 });
}
