/* Wrong: a range without all of its pages. */
#include "../bus-wrong.h"

WRONG_ACT("a range without all of its pages", BROKEN)
{
	const uint32_t ranges[6] = { 0, 1, 4097, 0, 1, 0 };

	return ranges_outcome(ranges, sizeof(ranges));
}
