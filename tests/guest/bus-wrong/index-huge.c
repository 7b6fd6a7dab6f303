/* Wrong: a write index of 2^32 - 8. */
#include "../bus-wrong.h"

WRONG_ACT("a write index of 2^32 - 8", BROKEN)
{
	*ring_word(ch.send, RING_WRITE_INDEX) = 0xfffffff8;
	channel_signal(&ch);
	return after();
}
