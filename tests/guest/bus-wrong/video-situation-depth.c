/* Wrong: a picture of no bits a pixel. */
#include "../bus-wrong.h"

WRONG_ACT("a picture of no bits a pixel", ANSWERED)
{
	static const uint8_t situation[27] = { [8] = 1, [9] = 1, [15] = 8, [19] = 8, [23] = 8 };

	device_open(OFFER_VIDEO);
	return video_outcome(5, situation, sizeof(situation));
}
