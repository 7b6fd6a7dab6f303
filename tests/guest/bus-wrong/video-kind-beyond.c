/* Wrong: a message that screens do not have. */
#include "../bus-wrong.h"

WRONG_ACT("a message that screens do not have", BROKEN)
{
	const uint32_t words[4] = { 3 };

	device_open(OFFER_VIDEO);
	return video_outcome(0x80000001, words, sizeof(words));
}
