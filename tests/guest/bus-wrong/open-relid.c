/* Wrong: opening a channel that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("opening a channel that is not there", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(16, 5, 0, 4);
}
