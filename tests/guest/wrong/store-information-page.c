/* Wrong: writing the information page. */
#include "../hv.h"

WRONG_ACT("writing the information page", TRAP(13))
{
	return outcome_of_store((void *)UMBRA_INFO_GPA);
}
