/* Wrong: a ring that runs out of memory. */
#include "../hv.h"

WRONG_ACT("a ring that runs out of memory", UMBRA_BAD_PARAMETER)
{
	struct umbra_ring ring;
	uint64_t *in = input_page();

	return umbra_ring_open(&hv, &ring, 0, 256, output_page(), 0x10000000 - 8192, 0, in,
			       gpa(in));
}
