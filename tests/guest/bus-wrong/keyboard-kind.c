/* Wrong: a keyboard's guest says what only the host does. */
#include "../bus-wrong.h"

WRONG_ACT("a keyboard's guest says what only the host does", BROKEN)
{
	const uint32_t words[3] = { 3, 0x1e };

	device_open(OFFER_KEYBOARD);
	return device_outcome(words, sizeof(words));
}
