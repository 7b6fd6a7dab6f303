/* Wrong: a packet shorter than its head. */
#include "../bus-wrong.h"

WRONG_ACT("a packet shorter than its head", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 1, 1, 96);
}
