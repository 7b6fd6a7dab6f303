/* Wrong: a variable header longer than a page. */
#include "../hv.h"

WRONG_ACT("a variable header longer than a page", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, umbra_with_header(0x13, 1023 * 8), gpa(input_page()), 0);
}
