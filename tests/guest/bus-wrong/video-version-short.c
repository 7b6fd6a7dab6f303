/* Wrong: a version of the screen that is cut off. */
#include "../bus-wrong.h"

WRONG_ACT("a version of the screen that is cut off", BROKEN)
{
	device_open(OFFER_VIDEO);
	return video_outcome(1, "", 0);
}
