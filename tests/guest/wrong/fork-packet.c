/* Wrong: having the machine forked without permission, by a packet. */
#include "../hv.h"

WRONG_ACT("a packet that forks, without permission", UMBRA_UNAVAILABLE)
{
	uint64_t *in = input_page();

	in[0] = 0x554d01;
	in[1] = 1 | 48ull << 32;
	in[2] = 4712;
	in[3] = UMBRA_FORK;
	in[4] = in[5] = in[6] = 0;
	in[7] = 5;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}
