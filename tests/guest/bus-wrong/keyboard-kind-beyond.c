/* Wrong: a message that keyboards do not have. */
#include "../bus-wrong.h"

WRONG_ACT("a message that keyboards do not have", BROKEN)
{
	const uint32_t words[2] = { 0xffffffff, 1 };

	device_open(OFFER_KEYBOARD);
	return device_outcome(words, sizeof(words));
}
