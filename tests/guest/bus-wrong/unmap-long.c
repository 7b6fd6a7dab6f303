/* Wrong: an UNMAP list of 64 KiB. */
#include "../bus-wrong.h"

WRONG_ACT("an UNMAP list of 64 KiB", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x42, [7] = 0xff, [8] = 0xff };

	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 0xffff);
}
