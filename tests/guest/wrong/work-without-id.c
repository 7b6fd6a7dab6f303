/* Wrong: work without an id. */
#include "../hv.h"

WRONG_ACT("work without an id", UMBRA_BAD_PARAMETER)
{
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(input_page()), gpa(output_page()));
}
