/* Wrong: a range whose second page is no memory. */
#include "../bus-wrong.h"

WRONG_ACT("a range whose second page is no memory", SRB_INVALID_REQUEST)
{
	const uint64_t gfns[2] = { gpa(scratch) / PAGE_BYTES, 0x80000 };

	return read_into(gfns, 2, 4000, 512);
}
