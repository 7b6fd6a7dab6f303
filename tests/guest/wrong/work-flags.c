/* Wrong: work with reserved flags. */
#include "../hv.h"

WRONG_ACT("work with reserved flags", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_ZERO | 1 << 16;
	in[2] = 0x8000000;
	in[3] = PAGE_BYTES;
	in[4] = 0;
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
