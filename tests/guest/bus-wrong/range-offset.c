/* Wrong: a range that begins behind its first page. */
#include "../bus-wrong.h"

WRONG_ACT("a range that begins behind its first page", BROKEN)
{
	const uint32_t ranges[8] = { 0, 1, 512, PAGE_BYTES, 1, 0, 2, 0 };

	return ranges_outcome(ranges, sizeof(ranges));
}
