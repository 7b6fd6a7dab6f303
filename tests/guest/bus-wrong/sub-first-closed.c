/* Wrong: the first channel is closed before the others, which are used further. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel used after its first was closed", BROKEN)
{
	const struct vmbus_relid close = { { VMBUS_CLOSE, 0 }, ch.relid };

	sub_open();
	bus_post_on(VMBUS_CONNECTION, &close, sizeof(close));
	return sub_operation(VSTOR_EXECUTE);
}
