/* Wrong: an interrupt with a vector above 255. */
#include "../hv.h"

WRONG_ACT("an interrupt with a vector above 255", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(0xb), 256, 1);
}
