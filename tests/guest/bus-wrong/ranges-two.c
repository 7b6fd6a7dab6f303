/* Wrong: two ranges. */
#include "../bus-wrong.h"

WRONG_ACT("two ranges", BROKEN)
{
	const uint32_t ranges[12] = { 0, 2, 512, 0, 1, 0, 512, 0, 2, 0, 0, 0 };

	return ranges_outcome(ranges, sizeof(ranges));
}
