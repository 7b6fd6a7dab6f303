/* Wrong: further channels are asked for on one of them. */
#include "../bus-wrong.h"

WRONG_ACT("a further channel asks for more", VSTOR_INVALID_STATE)
{
	sub_open();
	return sub_operation(VSTOR_CREATE_SUB_CHANNELS);
}
