/* Wrong: a version of the screen that there is not. */
#include "../bus-wrong.h"

WRONG_ACT("a version of the screen that there is not", REFUSED)
{
	const uint32_t version = 9 << 16 | 3;

	device_open(OFFER_VIDEO);
	return video_outcome(1, &version, sizeof(version)) == ANSWERED && !device_answer[20]
		       ? REFUSED
		       : MADE;
}
