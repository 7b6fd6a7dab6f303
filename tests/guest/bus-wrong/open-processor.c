/* Wrong: opening for a processor that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("opening for a processor that is not there", REFUSED)
{
	closed_with_gpadl(8);
	return open_outcome(ch.relid, 5, 16, 4);
}
