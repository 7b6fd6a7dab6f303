/* Wrong: a picture at the end of all addresses. */
#include "../bus-wrong.h"

WRONG_ACT("a picture at the end of all addresses", ANSWERED)
{
	static const uint8_t place[17] = { [8] = 1, [9] = 0xff, [10] = 0xff, [11] = 0xff,
					   [12] = 0xff, [13] = 0xff, [14] = 0xff, [15] = 0xff,
					   [16] = 0xff };
	const uint32_t version = 5 << 16 | 3;

	device_open(OFFER_VIDEO);
	video_outcome(1, &version, sizeof(version));
	return video_outcome(3, place, sizeof(place));
}
