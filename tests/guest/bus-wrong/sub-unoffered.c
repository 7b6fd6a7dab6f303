/* Wrong: a further channel is opened that nobody has offered. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel that was not offered", REFUSED)
{
	return open_outcome(81, ch.gpadl, 0, CHANNEL_PAGES);
}
