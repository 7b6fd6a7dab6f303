/* Wrong: a call without its privilege. */
#include "../hv.h"

WRONG_ACT("a call without its privilege", UMBRA_DENIED)
{
	return umbra_call(&hv, umbra_rep(0x50, 1), gpa(input_page()), gpa(output_page()));
}
