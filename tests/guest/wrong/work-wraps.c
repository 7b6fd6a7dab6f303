/* Wrong: work around the end of the address space. */
#include "../hv.h"

WRONG_ACT("work around the end of the address space", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_ZERO;
	in[2] = 0x8000000;
	in[3] = ~(uint64_t)PAGE_OFFSET;
	in[4] = 0;
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
