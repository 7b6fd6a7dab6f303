/* Wrong: moving a locked hypercall page. */
#include "../hv.h"

WRONG_ACT("moving a locked hypercall page", TRAP(13))
{
	uint64_t was = rdmsr(MSR_HYPERCALL);

	wrmsr(MSR_HYPERCALL, was | 2); /* to the end of this machine: this act is the last */
	return outcome_of_wrmsr(MSR_HYPERCALL, was);
}
