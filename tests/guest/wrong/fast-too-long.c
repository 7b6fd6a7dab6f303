/* Wrong: a fast call with more input than its registers. */
#include "../hv.h"

WRONG_ACT("a fast call with more input than its registers", UMBRA_BAD_INPUT)
{
	uint64_t registers[14] = { 0 };

	return umbra_call_xmm(&hv, umbra_with_header(umbra_fast(0x13), 12 * 8), registers);
}
