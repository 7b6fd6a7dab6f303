/* Wrong: an interrupt to another trust level. */
#include "../hv.h"

WRONG_ACT("an interrupt to another trust level", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(0xb), 0x40 | 1ull << 32, 1);
}
