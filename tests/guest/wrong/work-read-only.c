/* Wrong: a copy into the hypercall page. */
#include "../hv.h"

WRONG_ACT("a copy into the hypercall page", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_COPY;
	in[2] = 0x8000000;
	in[3] = PAGE_BYTES;
	in[4] = gpa(hv.page);
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
