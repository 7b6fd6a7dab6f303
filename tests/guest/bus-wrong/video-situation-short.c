/* Wrong: a situation that is cut off. */
#include "../bus-wrong.h"

WRONG_ACT("a situation that is cut off", BROKEN)
{
	const uint64_t words[3] = { 7, 1 };

	device_open(OFFER_VIDEO);
	return video_outcome(5, words, sizeof(words));
}
