/* Wrong: a status of the memory that is too short. */
#include "../bus-wrong.h"

WRONG_ACT("a status of the memory that is too short", ANSWERED)
{
	const uint64_t words[2] = { ~0ull, ~0ull };

	return memory_outcome(5, words, 2);
}
