/* Wrong: an event to a connection that does not exist. */
#include "../hv.h"

WRONG_ACT("an event to a connection that does not exist", UMBRA_BAD_CONNECTION)
{
	return umbra_call(&hv, umbra_fast(0x5d), 2, 0);
}
