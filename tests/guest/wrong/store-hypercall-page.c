/* Wrong: writing the hypercall page. */
#include "../hv.h"

WRONG_ACT("writing the hypercall page", TRAP(13))
{
	return outcome_of_store(hv.page);
}
