/* Wrong: lights of a keyboard that is not agreed upon. */
#include "../bus-wrong.h"

WRONG_ACT("lights of a keyboard that is not agreed upon", ANSWERED)
{
	const uint32_t words[2] = { 4, 0xffffffff };

	device_open(OFFER_KEYBOARD);
	return device_outcome(words, sizeof(words)); /* it is complete, and that is all */
}
