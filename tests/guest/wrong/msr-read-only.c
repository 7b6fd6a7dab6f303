/* Wrong: writing the VP index. */
#include "../hv.h"

WRONG_ACT("writing the VP index", TRAP(13))
{
	return outcome_of_wrmsr(MSR_VP_INDEX, 1);
}
