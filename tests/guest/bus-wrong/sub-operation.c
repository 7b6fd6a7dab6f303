/* Wrong: the first words of a controller on a further channel. */
#include "../bus-wrong.h"

WRONG_ACT("a handshake on a further channel", VSTOR_INVALID_STATE)
{
	sub_open();
	return sub_operation(VSTOR_BEGIN);
}
