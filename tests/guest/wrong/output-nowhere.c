/* Wrong: output where no memory is. */
#include "../hv.h"

WRONG_ACT("output where no memory is", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 0x8001, 0, 0xf0000000);
}
