/* Wrong: work on half pages. */
#include "../hv.h"

WRONG_ACT("work on half pages", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_ZERO;
	in[2] = 0x8000800;
	in[3] = PAGE_BYTES;
	in[4] = 0;
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
