/* Wrong: an UNMAP list shorter than its head. */
#include "../bus-wrong.h"

WRONG_ACT("an UNMAP list shorter than its head", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x42, [8] = 4 };

	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 4);
}
