/* Wrong: a rep call without elements. */
#include "../hv.h"

WRONG_ACT("a rep call without elements", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, 3, gpa(input_page()), 0);
}
