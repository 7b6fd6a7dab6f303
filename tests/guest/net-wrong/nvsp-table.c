/* Wrong: a table, as the host would send it. */
#include "../net-wrong.h"

WRONG_ACT("a table, as the host would send it", CHANNEL_BROKEN)
{
	return nvsp_words(NVSP_INDIRECTION_TABLE, 16, 12);
}
