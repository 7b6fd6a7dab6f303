/* Wrong: a ring where no memory is. */
#include "../hv.h"

WRONG_ACT("a ring where no memory is", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 2, output_page(), 0xf0000000, 0, in, gpa(in));
}
