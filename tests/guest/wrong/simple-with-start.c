/* Wrong: a simple call with a rep start. */
#include "../hv.h"

WRONG_ACT("a simple call with a rep start", UMBRA_BAD_INPUT)
{
	return umbra_call(&hv, 2 | 1ull << 48, gpa(input_page()), 0);
}
