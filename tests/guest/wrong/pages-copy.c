/* Wrong: a copy as a page range. */
#include "../hv.h"

WRONG_ACT("a copy as a page range", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = UMBRA_COPY;
	in[1] = 0x8000000;
	return umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, 1), gpa(in), gpa(output_page()));
}
