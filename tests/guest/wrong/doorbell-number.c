/* Wrong: the doorbell of a ring beyond the last. */
#include "../hv.h"

WRONG_ACT("the doorbell of a ring beyond the last", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_DOORBELL), 8, 0);
}
