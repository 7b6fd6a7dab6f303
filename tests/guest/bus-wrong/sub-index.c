/* Wrong: an index beyond the ring of a further channel. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel's index beyond its ring", ANSWERED)
{
	sub_open();
	*ring_word(sub.send, RING_WRITE_INDEX) = 0x7ffffff8;
	channel_signal(&sub);
	return after();
}
