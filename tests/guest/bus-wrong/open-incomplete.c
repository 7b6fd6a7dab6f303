/* Wrong: opening with pages of which not all are named. */
#include "../bus-wrong.h"

WRONG_ACT("opening with pages of which not all are named", REFUSED)
{
	const struct vmbus_gpadl_header h = {
		{ VMBUS_GPADL_HEADER, 0 }, ch.relid, 5, 8 + 8 * 8, 1, 8 * 4096, 0
	};

	channel_close(&ch);
	bus_post_on(VMBUS_CONNECTION, &h, sizeof(h));
	return open_outcome(ch.relid, 5, 0, 4);
}
