/* Wrong: a read index that is not a multiple of 8. */
#include "../bus-wrong.h"

WRONG_ACT("a read index that is not a multiple of 8", BROKEN)
{
	*ring_word(ch.receive, RING_READ_INDEX) = ch.read + 1;
	return after();
}
