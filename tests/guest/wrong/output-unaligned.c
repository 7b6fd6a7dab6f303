/* Wrong: output that is not aligned. */
#include "../hv.h"

WRONG_ACT("output that is not aligned", UMBRA_BAD_ALIGNMENT)
{
	return umbra_call(&hv, 0x8001, 0, gpa(output_page()) + 1);
}
