/* Wrong: a page range longer than an element may be. */
#include "../hv.h"

WRONG_ACT("a page range longer than an element may be", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = UMBRA_ZERO;
	in[1] = 0x8000000 | 16;
	return umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, 1), gpa(in), gpa(output_page()));
}
