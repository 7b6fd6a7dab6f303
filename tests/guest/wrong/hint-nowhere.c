/* Wrong: a memory hint where no memory is. */
#include "../hv.h"

WRONG_ACT("a memory hint where no memory is", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 2;
	in[1] = 0xf0000000;
	return umbra_call(&hv, umbra_rep(0x8003, 1), gpa(in), 0);
}
