/* Wrong: a payload that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a payload that is too short", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 2, 9, 80);
}
