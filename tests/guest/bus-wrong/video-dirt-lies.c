/* Wrong: more rectangles than there are. */
#include "../bus-wrong.h"

WRONG_ACT("more rectangles than there are", BROKEN)
{
	static const uint8_t dirt[18] = { 0, 200 };

	device_open(OFFER_VIDEO);
	return video_outcome(10, dirt, sizeof(dirt));
}
