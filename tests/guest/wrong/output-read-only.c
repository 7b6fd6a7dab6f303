/* Wrong: output into the hypercall page. */
#include "../hv.h"

WRONG_ACT("output into the hypercall page", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, 0x8001, 0, gpa(hv.page));
}
