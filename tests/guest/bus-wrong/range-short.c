/* Wrong: more data than the range holds, written. */
#include "../bus-wrong.h"

WRONG_ACT("more data than the range holds, written", SRB_DATA_OVERRUN)
{
	const uint8_t cdb[16] = { 0x8a, [13] = 8 };

	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 512);
}
