/* Wrong: input outside of the address space. */
#include "../hv.h"

WRONG_ACT("input outside of the address space", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 2, ~0ull - PAGE_OFFSET, 0);
}
