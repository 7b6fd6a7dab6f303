/* Wrong: the rings of a further channel are taken away while it is open. */
#include "../bus-wrong.h"

WRONG_ACT("the rings of an open further channel taken away", ANSWERED)
{
	sub_open();
	bus_teardown(6, sub.relid);
	channel_signal(&sub);
	return after();
}
