/* Wrong: a message of a type of the hypervisor's. */
#include "../hv.h"

WRONG_ACT("a message of a type of the hypervisor's", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = 1;
	in[1] = 0x80000001;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
