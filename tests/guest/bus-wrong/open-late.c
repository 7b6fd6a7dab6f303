/* Wrong: opening a connection that was not offered. */
#include "../bus-wrong.h"

WRONG_ACT("opening a connection that was not offered", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(17, 5, 0, 4);
}
