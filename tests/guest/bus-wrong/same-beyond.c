/* Wrong: WRITE SAME across the end. */
#include "../bus-wrong.h"

WRONG_ACT("WRITE SAME across the end", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x93, [10] = 0xff };

	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 512);
}
