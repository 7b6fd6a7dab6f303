/* Wrong: more further channels than the host has said. */
#include "../bus-wrong.h"

WRONG_ACT("more further channels than there may be", VSTOR_INVALID_STATE)
{
	return subs_ask(0xffff);
}
