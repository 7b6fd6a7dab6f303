/* Wrong: messages for another trust level. */
#include "../bus-wrong.h"

WRONG_ACT("messages for another trust level", REFUSED)
{
	const struct vmbus_contact c = { .head.kind = VMBUS_INITIATE_CONTACT,
					 .version = VMBUS_5_3,
					 .vp_index = 0,
					 .interrupt_page = VMBUS_SINT | 1 << 8 };
	const struct vmbus_version_response *r;

	bus_post_on(VMBUS_CONNECTION, &c, sizeof(c));
	r = bus_expect(VMBUS_VERSION_RESPONSE);
	return answer_outcome(r, r && r->supported);
}
