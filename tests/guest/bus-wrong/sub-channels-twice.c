/* Wrong: further channels are asked for a second time. */
#include "../bus-wrong.h"

WRONG_ACT("further channels asked for twice", VSTOR_INVALID_STATE)
{
	return subs_ask(1) ? BROKEN : subs_ask(1);
}
