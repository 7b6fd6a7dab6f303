/* Wrong: an empty packet on a component's channel. */
#include "../bus-wrong.h"

WRONG_ACT("an empty packet on a component's channel", BROKEN)
{
	component_open(OFFER_KEYS);
	channel_put(&ch, PACKET_INBAND, NULL, 0, NULL, 0);
	return component_outcome();
}
