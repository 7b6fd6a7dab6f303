/* Wrong: a call that does not exist. */
#include "../hv.h"

WRONG_ACT("a call that does not exist", UMBRA_BAD_CALL)
{
	return umbra_call(&hv, umbra_fast(0x7777), 0, 0);
}
