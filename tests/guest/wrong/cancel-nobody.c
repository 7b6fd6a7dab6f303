/* Wrong: cancelling what does not exist. */
#include "../hv.h"

WRONG_ACT("cancelling what does not exist", UMBRA_NOT_FOUND)
{
	return umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), 12345, 0);
}
