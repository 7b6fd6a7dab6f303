/* Wrong: the first channel's rings for a further one. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel with rings of the first", REFUSED)
{
	struct vmbus_offer offer;

	if (subs_ask(1) || !sub_offered(&offer))
		return BROKEN;
	return open_outcome(offer.relid, ch.gpadl, 0, CHANNEL_PAGES);
}
