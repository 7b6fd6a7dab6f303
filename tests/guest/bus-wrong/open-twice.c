/* Wrong: opening a channel twice. */
#include "../bus-wrong.h"

WRONG_ACT("opening a channel twice", REFUSED)
{
	return open_outcome(ch.relid, ch.gpadl, 0, CHANNEL_PAGES);
}
