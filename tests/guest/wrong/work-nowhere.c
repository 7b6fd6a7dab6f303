/* Wrong: work where no memory is. */
#include "../hv.h"

WRONG_ACT("work where no memory is", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_ZERO;
	in[2] = 0xf0000000;
	in[3] = PAGE_BYTES;
	in[4] = 0;
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
