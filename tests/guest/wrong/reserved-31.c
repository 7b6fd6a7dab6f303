/* Wrong: the nested bit. */
#include "../hv.h"

WRONG_ACT("the nested bit", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL) | 1ull << 31, 0, 0);
}
