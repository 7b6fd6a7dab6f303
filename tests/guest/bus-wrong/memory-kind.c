/* Wrong: a message about memory of a kind that is not there. */
#include "../bus-wrong.h"

WRONG_ACT("a message about memory of a kind that is not there", ANSWERED)
{
	const uint64_t words[1] = { 0 };

	return memory_outcome(99, words, 1);
}
