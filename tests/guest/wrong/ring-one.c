/* Wrong: a ring of one entry. */
#include "../hv.h"

WRONG_ACT("a ring of one entry", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 1, output_page(), gpa(output_page()), 0, in, gpa(in));
}
