/* Wrong: a read index beyond the ring. */
#include "../bus-wrong.h"

WRONG_ACT("a read index beyond the ring", BROKEN)
{
	*ring_word(ch.receive, RING_READ_INDEX) = 0x80000000;
	return after();
}
