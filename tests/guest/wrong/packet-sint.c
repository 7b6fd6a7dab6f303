/* Wrong: a packet whose reply has no SINT. */
#include "../hv.h"

WRONG_ACT("a packet whose reply has no SINT", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 0x554d01;
	in[1] = 1 | 48ull << 32;
	in[2] = 1;
	in[7] = 16;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
