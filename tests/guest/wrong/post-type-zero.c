/* Wrong: a message of type 0. */
#include "../hv.h"

WRONG_ACT("a message of type 0", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
