/* Wrong: reserved bit 44 of the control word. */
#include "../hv.h"

WRONG_ACT("reserved bit 44 of the control word", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL) | 1ull << 44, 0, 0);
}
