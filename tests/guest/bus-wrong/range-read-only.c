/* Wrong: data for the information page, which is read only. */
#include "../bus-wrong.h"

WRONG_ACT("data for the information page, which is read only", SRB_INVALID_REQUEST)
{
	const uint64_t gfn = UMBRA_INFO_GPA / PAGE_BYTES;

	return read_into(&gfn, 1, 0, 512);
}
