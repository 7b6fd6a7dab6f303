/* Wrong: thanks for memory that nobody gave. */
#include "../bus-wrong.h"

WRONG_ACT("thanks for memory that nobody gave", BROKEN)
{
	const uint64_t words[1] = { 32768 | 1ull << 32 };

	return memory_outcome(9, words, 1);
}
