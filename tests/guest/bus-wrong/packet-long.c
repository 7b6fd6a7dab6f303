/* Wrong: a packet longer than is allowed. */
#include "../bus-wrong.h"

WRONG_ACT("a packet longer than is allowed", BROKEN)
{
	return packet_outcome(PACKET_INBAND, 2, 600, 4808);
}
