/* Wrong: an unknown register. */
#include "../hv.h"

WRONG_ACT("an unknown register", TRAP(13))
{
	return outcome_of_rdmsr(0x400001ff);
}
