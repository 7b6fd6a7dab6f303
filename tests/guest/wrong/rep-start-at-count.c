/* Wrong: a rep start that is the count. */
#include "../hv.h"

WRONG_ACT("a rep start that is the count", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, umbra_rep(3, 2) | 2ull << 48, gpa(input_page()), 0);
}
