/* Wrong: a ring with a SINT beyond the last. */
#include "../hv.h"

WRONG_ACT("a ring with a SINT beyond the last", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 2, output_page(), gpa(output_page()), 16, in,
			       gpa(in));
}
