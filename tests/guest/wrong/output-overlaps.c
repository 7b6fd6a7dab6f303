/* Wrong: output over the input. */
#include "../hv.h"

WRONG_ACT("output over the input", UMBRA_BAD_PARAMETER)
{
	uint64_t *in = input_page();

	in[0] = ~0u;
	return umbra_call(&hv, UMBRA_CALL_VERSION, gpa(in), gpa(in));
}
