/* Wrong: opening channel 0. */
#include "../bus-wrong.h"

WRONG_ACT("opening channel 0", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(0, 5, 0, 4);
}
