/* Wrong: 2^32 - 1 ranges. */
#include "../bus-wrong.h"

WRONG_ACT("2^32 - 1 ranges", BROKEN)
{
	const uint32_t ranges[6] = { 0, 0xffffffff, 512, 0, 1, 0 };

	return ranges_outcome(ranges, sizeof(ranges));
}
