/* Wrong: output across a page. */
#include "../hv.h"

WRONG_ACT("output across a page", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 0x8002, 0, gpa(output_page()) + 16);
}
