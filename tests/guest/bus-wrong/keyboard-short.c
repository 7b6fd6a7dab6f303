/* Wrong: a packet of a keyboard that says nothing. */
#include "../bus-wrong.h"

WRONG_ACT("a packet of a keyboard that says nothing", BROKEN)
{
	device_open(OFFER_KEYBOARD);
	return device_outcome("", 0);
}
