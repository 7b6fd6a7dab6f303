/* Wrong: a range where no memory is. */
#include "../bus-wrong.h"

WRONG_ACT("a range where no memory is", SRB_INVALID_REQUEST)
{
	const uint64_t gfn = 0x80000;

	return read_into(&gfn, 1, 0, 512);
}
