/* Wrong: a connection where nobody connects. */
#include "../bus-wrong.h"

WRONG_ACT("a connection where nobody connects", QUIET)
{
	const struct vmbus_tl_connect connect = { .head.kind = VMBUS_TL_CONNECT };

	return after_message(&connect, sizeof(connect));
}
