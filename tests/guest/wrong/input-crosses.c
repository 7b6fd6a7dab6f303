/* Wrong: input across a page. */
#include "../hv.h"

WRONG_ACT("input across a page", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 2, gpa(input_page()) + PAGE_BYTES - 16, 0);
}
