/* Wrong: the picture's place before a version. */
#include "../bus-wrong.h"

WRONG_ACT("the picture's place before a version", ANSWERED)
{
	static const uint8_t place[17] = { [8] = 1, [10] = 0x10 };

	device_open(OFFER_VIDEO);
	return video_outcome(3, place, sizeof(place));
}
