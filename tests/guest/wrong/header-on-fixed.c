/* Wrong: a variable header on a call that has none. */
#include "../hv.h"

WRONG_ACT("a variable header on a call that has none", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_with_header(2, 8), gpa(input_page()), 0);
}
