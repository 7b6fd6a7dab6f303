/* Wrong: signalling with a flag. */
#include "../bus-wrong.h"

WRONG_ACT("signalling with a flag", 5)
{
	return umbra_call(&hv, umbra_fast(0x5d), ch.connection | 1ull << 32, 0) & 0xffff;
}
