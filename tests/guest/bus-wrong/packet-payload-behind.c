/* Wrong: a payload that begins behind the packet. */
#include "../bus-wrong.h"

WRONG_ACT("a payload that begins behind the packet", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 12, 10, 88);
}
