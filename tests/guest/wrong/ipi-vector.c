/* Wrong: an interrupt with a vector below 16. */
#include "../hv.h"

WRONG_ACT("an interrupt with a vector below 16", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, umbra_fast(0xb), 15, 1);
}
