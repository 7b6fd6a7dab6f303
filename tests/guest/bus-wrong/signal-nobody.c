/* Wrong: signalling a channel that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("signalling a channel that is not there", 0x12)
{
	return umbra_call(&hv, umbra_fast(0x5d), VMBUS_CONNECTION_CHANNEL + 16, 0) & 0xffff;
}
