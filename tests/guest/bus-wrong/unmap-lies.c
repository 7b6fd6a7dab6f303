/* Wrong: an UNMAP list that says it is longer. */
#include "../bus-wrong.h"

WRONG_ACT("an UNMAP list that says it is longer", SRB_ERROR | SRB_SENSE_VALID | 5 << 8)
{
	const uint8_t cdb[16] = { 0x42, [8] = 24 };

	for (unsigned n = 0; n < 24; n++)
		scratch[n] = 0xff;
	return command_outcome(cdb, 16, SRB_DIRECTION_WRITE, 24);
}
