/* Wrong: rings divided at page 0 of 8. */
#include "../bus-wrong.h"

WRONG_ACT("rings divided at page 0 of 8", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(ch.relid, 5, 0, 0);
}
