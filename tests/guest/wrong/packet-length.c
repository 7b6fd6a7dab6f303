/* Wrong: a packet of a wrong length. */
#include "../hv.h"

WRONG_ACT("a packet of a wrong length", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 0x554d01;
	in[1] = 1 | 8ull << 32;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
