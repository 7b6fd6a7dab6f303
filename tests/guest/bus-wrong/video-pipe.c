/* Wrong: a pipe of another kind on the screen. */
#include "../bus-wrong.h"

WRONG_ACT("a pipe of another kind on the screen", BROKEN)
{
	const uint32_t words[5] = { 2, 12, 1, 12, 3 };

	device_open(OFFER_VIDEO);
	return device_outcome(words, sizeof(words));
}
