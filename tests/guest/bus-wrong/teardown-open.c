/* Wrong: tearing down the pages of an open channel. */
#include "../bus-wrong.h"

WRONG_ACT("tearing down the pages of an open channel", BROKEN)
{
	bus_teardown(ch.gpadl, ch.relid);
	return after();
}
