/* Wrong: a memory hint of an unknown type. */
#include "../hv.h"

WRONG_ACT("a memory hint of an unknown type", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = 0x8000000;
	return umbra_call(&hv, umbra_rep(0x8003, 1), gpa(in), 0);
}
