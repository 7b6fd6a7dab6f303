/* Wrong: a SINT with a vector below 16. */
#include "../hv.h"

WRONG_ACT("a SINT with a vector below 16", TRAP(13))
{
	return outcome_of_wrmsr(MSR_SINT0 + 3, 3);
}
