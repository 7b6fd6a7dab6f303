/* Wrong: a command longer than a command can be. */
#include "../bus-wrong.h"

WRONG_ACT("a command longer than a command can be", SRB_INVALID_REQUEST)
{
	const uint8_t cdb[16] = { 0 };

	return command_outcome(cdb, 17, SRB_DIRECTION_NONE, 0);
}
