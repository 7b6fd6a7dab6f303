/* Wrong: a write index beyond the ring. */
#include "../bus-wrong.h"

WRONG_ACT("a write index beyond the ring", BROKEN)
{
	*ring_word(ch.send, RING_WRITE_INDEX) = ch.ring_bytes;
	channel_signal(&ch);
	return after();
}
