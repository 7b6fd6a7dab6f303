/* Wrong: ranges that begin behind the head. */
#include "../bus-wrong.h"

WRONG_ACT("ranges that begin behind the head", BROKEN)
{
	return packet_outcome(PACKET_GPA_DIRECT, 2, 10, 88);
}
