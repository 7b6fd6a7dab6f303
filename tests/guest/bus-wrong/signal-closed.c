/* Wrong: signalling a closed channel. */
#include "../bus-wrong.h"

WRONG_ACT("signalling a closed channel", 0)
{
	channel_close(&ch);
	return channel_signal(&ch);
}
