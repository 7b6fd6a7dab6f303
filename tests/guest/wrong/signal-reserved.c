/* Wrong: an event with reserved bits. */
#include "../hv.h"

WRONG_ACT("an event with reserved bits", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(0x5d), 2 | 1ull << 48, 0);
}
