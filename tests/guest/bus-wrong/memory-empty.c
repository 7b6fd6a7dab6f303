/* Wrong: an answer about memory without a head. */
#include "../bus-wrong.h"

WRONG_ACT("an answer about memory without a head", BROKEN)
{
	return memory_outcome(7, NULL, 0);
}
