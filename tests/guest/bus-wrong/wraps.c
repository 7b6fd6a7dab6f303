/* Wrong: a sector number that wraps. */
#include "../bus-wrong.h"

WRONG_ACT("a sector number that wraps", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x88, 0,    0xff, 0xff, 0xff, 0xff, 0xff,
				  0xff, 0xff, 0xff, 0,    0,    0,    2 };

	return command_outcome(cdb, 16, SRB_DIRECTION_READ, 1024);
}
