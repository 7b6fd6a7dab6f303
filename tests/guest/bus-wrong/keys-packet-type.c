/* Wrong: a packet of another type on a component's channel. */
#include "../bus-wrong.h"

WRONG_ACT("a packet of another type on a component's channel", BROKEN)
{
	const uint64_t words[8] = { 1 };

	component_open(OFFER_KEYS);
	channel_put(&ch, PACKET_COMPLETION, words, sizeof(words), NULL, 0);
	return component_outcome();
}
