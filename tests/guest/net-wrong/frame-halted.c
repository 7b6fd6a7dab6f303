/* Wrong: a frame for a card that was halted. */
#include "../net-wrong.h"

WRONG_ACT("a frame for a card that was halted", CHANNEL_BROKEN)
{
	const struct frame_fields fields = { .bytes = 0 };

	net_halt();
	return frame_outcome(&fields);
}
