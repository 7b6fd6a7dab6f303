/* Wrong: half of a packet head. */
#include "../bus-wrong.h"

WRONG_ACT("half of a packet head", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 2, 10, 8);
}
