/* Wrong: a pointer's place that is cut off. */
#include "../bus-wrong.h"

WRONG_ACT("a pointer's place that is cut off", BROKEN)
{
	const uint32_t words[2] = { 1 };

	device_open(OFFER_VIDEO);
	return video_outcome(7, words, sizeof(words));
}
