/* Wrong: a further channel is opened once its first one was closed. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel opened after its first was closed", REFUSED)
{
	const struct vmbus_relid close = { { VMBUS_CLOSE, 0 }, ch.relid };
	const struct vmbus_relid *gone;
	struct vmbus_offer offer;

	if (subs_ask(1) || !sub_offered(&offer) || bus_gpadl(6, offer.relid, scratch, 8))
		return BROKEN;
	bus_post_on(VMBUS_CONNECTION, &close, sizeof(close));
	gone = bus_expect(VMBUS_RESCIND);
	if (!gone || gone->relid != offer.relid)
		return QUIET;
	return open_outcome(offer.relid, 6, 0, 4);
}
