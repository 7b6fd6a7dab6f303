/* Wrong: a screen's guest says what only the host does. */
#include "../bus-wrong.h"

WRONG_ACT("a screen's guest says what only the host does", BROKEN)
{
	const uint32_t words[4] = { 3 };

	device_open(OFFER_VIDEO);
	return video_outcome(2, words, sizeof(words));
}
