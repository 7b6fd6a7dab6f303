/* Wrong: input where no memory is. */
#include "../hv.h"

WRONG_ACT("input where no memory is", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 2, 0xf0000000, 0);
}
