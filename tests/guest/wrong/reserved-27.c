/* Wrong: reserved bit 27 of the control word. */
#include "../hv.h"

WRONG_ACT("reserved bit 27 of the control word", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL) | 1ull << 27, 0, 0);
}
