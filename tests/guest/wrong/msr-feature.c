/* Wrong: a register without its feature. */
#include "../hv.h"

WRONG_ACT("a register without its feature", TRAP(13))
{
	return outcome_of_rdmsr(0x40000071);
}
