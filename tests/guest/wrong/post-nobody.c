/* Wrong: a message to a connection that does not exist. */
#include "../hv.h"

WRONG_ACT("a message to a connection that does not exist", UMBRA_BAD_CONNECTION)
{
	uint64_t *in = input_page();

	in[0] = 4;
	in[1] = 1 | 8ull << 32;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
