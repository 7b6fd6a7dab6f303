/* Wrong: a message longer than 240 bytes. */
#include "../hv.h"

WRONG_ACT("a message longer than 240 bytes", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = 1 | 241ull << 32;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
