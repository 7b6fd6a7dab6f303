/* Wrong: a ring of too many entries. */
#include "../hv.h"

WRONG_ACT("a ring of too many entries", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 512, output_page(), gpa(output_page()), 0, in,
			       gpa(in));
}
