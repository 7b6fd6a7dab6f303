/* Wrong: opening with pages of which not all are named. */
#include "../bus-wrong.h"

WRONG_ACT("opening with pages of which not all are named", REFUSED)
{
	const struct vmbus_gpadl_header header = { .head = { VMBUS_GPADL_HEADER, 0 },
						   .relid = ch.relid,
						   .gpadl = 5,
						   .range_bytes = 8 + 8 * 8,
						   .ranges = 1,
						   .bytes = 8 * PAGE_BYTES };

	channel_close(&ch);
	bus_post_on(VMBUS_CONNECTION, &header, sizeof(header));
	return open_outcome(ch.relid, 5, 0, 4);
}
