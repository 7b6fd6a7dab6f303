/* Wrong: a set of an unknown format. */
#include "../hv.h"

WRONG_ACT("a set of an unknown format", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[2] = 2;
	return umbra_call(&hv, 0x13, gpa(in), 0);
}
