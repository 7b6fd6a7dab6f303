/* Wrong: UNMAP beyond the end. */
#include "../bus-wrong.h"

WRONG_ACT("UNMAP beyond the end", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x42, [8] = 24 };

	for (unsigned n = 0; n < 24; n++)
		scratch[n] = n >= 8 ? 0xff : 0;
	scratch[3] = 16;
	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 24);
}
