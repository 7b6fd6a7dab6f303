/* Wrong: a ring beyond the last. */
#include "../hv.h"

WRONG_ACT("a ring beyond the last", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 8, 2, output_page(), gpa(output_page()), 0, in, gpa(in));
}
