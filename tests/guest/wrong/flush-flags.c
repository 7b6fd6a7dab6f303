/* Wrong: reserved flags of a flush. */
#include "../hv.h"

WRONG_ACT("reserved flags of a flush", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[1] = 1 << 4;
	return umbra_call(&hv, 2, gpa(in), 0);
}
