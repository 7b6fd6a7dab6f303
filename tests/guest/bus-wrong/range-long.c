/* Wrong: a range of 4 GiB. */
#include "../bus-wrong.h"

WRONG_ACT("a range of 4 GiB", BROKEN)
{
	const uint32_t ranges[6] = { 0, 1, 0xffffffff, 0, 1, 0 };

	return ranges_outcome(ranges, sizeof(ranges));
}
