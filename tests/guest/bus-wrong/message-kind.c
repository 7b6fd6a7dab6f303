/* Wrong: a message of a kind that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("a message of a kind that is not there", QUIET)
{
	const struct vmbus_head message = { 77, 0 };

	return after_message(&message, sizeof(message));
}
