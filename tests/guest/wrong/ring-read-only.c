/* Wrong: a ring over the hypercall page. */
#include "../hv.h"

WRONG_ACT("a ring over the hypercall page", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 2, output_page(), gpa(hv.page) - PAGE_BYTES, 0, in,
			       gpa(in));
}
