/* Wrong: more elements than a page holds. */
#include "../hv.h"

WRONG_ACT("more elements than a page holds", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, umbra_rep(3, REP_MASK), gpa(input_page()), 0);
}
