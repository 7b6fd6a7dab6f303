/* Wrong: rings where no memory is. */
#include "../bus-wrong.h"

WRONG_ACT("rings where no memory is", BROKEN)
{
	struct { struct vmbus_gpadl_header header; uint64_t gfn[8];
	} __attribute__((packed)) message = { .header = { .head = { VMBUS_GPADL_HEADER, 0 },
							  .relid = ch.relid,
							  .gpadl = 5,
							  .range_bytes = 8 + 8 * 8,
							  .ranges = 1,
							  .bytes = 8 * PAGE_BYTES } };

	channel_close(&ch);
	for (unsigned n = 0; n < 8; n++)
		message.gfn[n] = n & 1 ? ~0ull - n : 0x80000 + n;
	bus_post_on(VMBUS_CONNECTION, &message, sizeof(message));
	bus_expect(VMBUS_GPADL_CREATED);
	if (open_outcome(ch.relid, 5, 0, 4) != MADE)
		return REFUSED;
	channel_signal(&ch);
	return after();
}
