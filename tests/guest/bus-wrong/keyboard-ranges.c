/* Wrong: a keyboard packet that points into memory. */
#include "../bus-wrong.h"

WRONG_ACT("a keyboard packet that points into memory", BROKEN)
{
	const uint32_t words[2] = { 1, 1 << 16 };

	device_open(OFFER_KEYBOARD);
	channel_put(&ch, PACKET_GPA_DIRECT, words, sizeof(words), scratch, PAGE_BYTES);
	return device_outcome(words, sizeof(words));
}
