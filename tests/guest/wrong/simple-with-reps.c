/* Wrong: a simple call with a rep count. */
#include "../hv.h"

WRONG_ACT("a simple call with a rep count", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_rep(2, 1), gpa(input_page()), 0);
}
