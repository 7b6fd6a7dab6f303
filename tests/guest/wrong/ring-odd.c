/* Wrong: a ring of three entries. */
#include "../hv.h"

WRONG_ACT("a ring of three entries", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 3, output_page(), gpa(output_page()), 0, in, gpa(in));
}
