/* Wrong: messages at another SINT. */
#include "../bus-wrong.h"

WRONG_ACT("messages at another SINT", REFUSED)
{
	const struct vmbus_contact contact = { .head.kind = VMBUS_INITIATE_CONTACT,
					       .version = VMBUS_5_3,
					       .vp_index = 0,
					       .interrupt_page = 3 };
	const struct vmbus_version_response *response;

	bus_post_on(VMBUS_CONNECTION, &contact, sizeof(contact));
	response = bus_expect(VMBUS_VERSION_RESPONSE);
	return answer_outcome(response, response && response->supported);
}
