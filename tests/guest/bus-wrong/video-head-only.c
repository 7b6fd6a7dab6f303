/* Wrong: a screen's message without its own head. */
#include "../bus-wrong.h"

WRONG_ACT("a screen's message without its own head", BROKEN)
{
	const uint32_t words[2] = { 1, 8 };

	device_open(OFFER_VIDEO);
	return device_outcome(words, sizeof(words));
}
