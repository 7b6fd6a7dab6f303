/* Wrong: a place of the picture that is cut off. */
#include "../bus-wrong.h"

WRONG_ACT("a place of the picture that is cut off", BROKEN)
{
	const uint64_t words[2] = { 7 };

	device_open(OFFER_VIDEO);
	return video_outcome(3, words, sizeof(words));
}
