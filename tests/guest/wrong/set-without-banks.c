/* Wrong: a set whose banks are not there. */
#include "../hv.h"

WRONG_ACT("a set whose banks are not there", UMBRA_BAD_INPUT)
{
	uint64_t *in = input_page();

	in[3] = 3;
	return umbra_call(&hv, umbra_with_header(0x13, 8), gpa(in), 0);
}
