/* Wrong: a ring that does not begin a page. */
#include "../hv.h"

WRONG_ACT("a ring that does not begin a page", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 2, output_page(), gpa(output_page()) + 8, 0, in,
			       gpa(in));
}
