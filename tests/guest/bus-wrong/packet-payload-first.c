/* Wrong: a payload that begins in the head. */
#include "../bus-wrong.h"

WRONG_ACT("a payload that begins in the head", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 1, 10, 88);
}
