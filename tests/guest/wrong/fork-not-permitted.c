/* Wrong: having the machine forked without permission. */
#include "../hv.h"

WRONG_ACT("a fork without permission", UMBRA_UNAVAILABLE)
{
	uint64_t *in = input_page();
	uint32_t child;

	return umbra_fork(&hv, 4711, in, gpa(in), &child);
}
