/*
 * Wrong: further channels are never let go. There are two places for each: then none is offered,
 * and the first goes on.
 */
#include "../bus-wrong.h"

WRONG_ACT("further channels that are never let go", ANSWERED)
{
	struct vmbus_offer offer;

	for (unsigned n = 0; n < 2; n++) {
		if (subs_ask(1) || !sub_offered(&offer))
			return BROKEN;
		first_reopen(7 + n);
	}
	if (subs_ask(1) || !bus_is_quiet())
		return BROKEN;
	return after();
}
