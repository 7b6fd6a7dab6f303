/* Wrong: the doorbell of a ring that does not exist. */
#include "../hv.h"

WRONG_ACT("the doorbell of a ring that does not exist", UMBRA_NOT_FOUND)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_DOORBELL), 3, 0);
}
