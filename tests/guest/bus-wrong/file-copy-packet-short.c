/* Wrong: a packet without a head on a file copy's channel. */
#include "../bus-wrong.h"

WRONG_ACT("a packet without a head on a file copy's channel", BROKEN)
{
	const uint64_t words[3] = { 1 };

	component_open(OFFER_FILE_COPY);
	channel_put(&ch, PACKET_INBAND, words, sizeof(words), NULL, 0);
	return component_outcome();
}
