/* Wrong: opening with pages that were not named. */
#include "../bus-wrong.h"

WRONG_ACT("opening with pages that were not named", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(ch.relid, 6, 0, 4);
}
