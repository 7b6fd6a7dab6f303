/* Wrong: a packet that ends behind what is written. */
#include "../bus-wrong.h"

WRONG_ACT("a packet that ends behind what is written", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 2, 20, 64);
}
