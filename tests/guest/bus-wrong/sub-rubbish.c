/* Wrong: rubbish on a further channel, which breaks that one alone. */
#include "../bus-wrong.h"

WRONG_ACT("rubbish on a further channel breaks no other", ANSWERED)
{
	sub_open();
	channel_put(&sub, PACKET_INBAND, "short", 5, NULL, 0);
	if (sub_operation(VSTOR_EXECUTE) != BROKEN)
		return BROKEN;
	return after();
}
