/* Wrong: a write index that is not a multiple of 8. */
#include "../bus-wrong.h"

WRONG_ACT("a write index that is not a multiple of 8", BROKEN)
{
	*ring_word(ch.send, RING_WRITE_INDEX) = ch.written + 4;
	channel_signal(&ch);
	return after();
}
