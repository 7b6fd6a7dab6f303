/* Wrong: the same; the first channel has not begun anew. */
#include "../bus-wrong.h"

WRONG_ACT("what is said on a further channel begins nothing", ANSWERED)
{
	sub_open();
	sub_operation(VSTOR_BEGIN);
	return after();
}
