/* Wrong: more lists than are allowed. */
#include "../bus-wrong.h"

WRONG_ACT("more lists than are allowed", REFUSED)
{
	struct vmbus_gpadl_header h = { { VMBUS_GPADL_HEADER, 0 }, ch.relid, 1000, 16, 1, 4096, 0 };
	uint64_t got = MADE;

	while (got == MADE && h.gpadl < 2000) {
		h.gpadl++;
		got = gpadl_outcome(&h, 1);
	}
	return h.gpadl < 2000 ? got : MADE;
}
