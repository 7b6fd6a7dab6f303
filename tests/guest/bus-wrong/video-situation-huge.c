/* Wrong: a picture of as many pixels as a word holds. */
#include "../bus-wrong.h"

WRONG_ACT("a picture of as many pixels as a word holds", ANSWERED)
{
	static const uint8_t situation[27] = { [8] = 1, [9] = 1, [14] = 32, [15] = 0xff,
					       [16] = 0xff, [17] = 0xff, [18] = 0xff, [19] = 0xff,
					       [20] = 0xff, [21] = 0xff, [22] = 0xff, [23] = 0xff,
					       [24] = 0xff, [25] = 0xff, [26] = 0xff };

	device_open(OFFER_VIDEO);
	return video_outcome(5, situation, sizeof(situation));
}
