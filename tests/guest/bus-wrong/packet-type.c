/* Wrong: a packet of another type. */
#include "../bus-wrong.h"

WRONG_ACT("a packet of another type", BROKEN)
{
	return packet_outcome(7, 2, 10, 88);
}
