/* Wrong: a message without a kind. */
#include "../bus-wrong.h"

WRONG_ACT("a message without a kind", QUIET)
{
	return after_message("", 0);
}
