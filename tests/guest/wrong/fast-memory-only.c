/* Wrong: a fast call that takes memory only. */
#include "../hv.h"

WRONG_ACT("a fast call that takes memory only", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_fast(2), 0, 0);
}
