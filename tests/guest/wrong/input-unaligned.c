/* Wrong: input that is not aligned. */
#include "../hv.h"

WRONG_ACT("input that is not aligned", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 2, gpa(input_page()) + 4, 0);
}
