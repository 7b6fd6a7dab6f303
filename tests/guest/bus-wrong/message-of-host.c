/* Wrong: a message that only hosts send. */
#include "../bus-wrong.h"

WRONG_ACT("a message that only hosts send", QUIET)
{
	const struct vmbus_version_response response = { .head.kind = VMBUS_VERSION_RESPONSE };

	return after_message(&response, sizeof(response));
}
