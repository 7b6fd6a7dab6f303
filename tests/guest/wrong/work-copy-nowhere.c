/* Wrong: a copy to where no memory is. */
#include "../hv.h"

WRONG_ACT("a copy to where no memory is", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = UMBRA_COPY;
	in[2] = 0x8000000;
	in[3] = 0x2000;
	in[4] = 0xf0000000;
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(output_page()));
}
