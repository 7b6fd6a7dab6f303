/* Wrong: a table of channels without an entry. */
#include "../net-wrong.h"

WRONG_ACT("a table of channels without an entry", RNDIS_INVALID_DATA)
{
	return scale_outcome(&(struct scale_fields){ .table_bytes = 3 });
}
