/* Wrong: an event flag that the connection does not have. */
#include "../hv.h"

WRONG_ACT("an event flag that the connection does not have", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(0x5d), 0x554d10 | 1ull << 32, 0);
}
