/* Wrong: a range whose address wraps. */
#include "../bus-wrong.h"

WRONG_ACT("a range whose address wraps", SRB_INVALID_REQUEST)
{
	const uint64_t gfn = (1ull << 52) + gpa(scratch) / PAGE_BYTES;

	return read_into(&gfn, 1, 0, 512);
}
