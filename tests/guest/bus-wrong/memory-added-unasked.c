/* Wrong: a region of memory taken that nobody offered. */
#include "../bus-wrong.h"

WRONG_ACT("a region of memory taken that nobody offered", BROKEN)
{
	const uint64_t words[1] = { 32768 | 1ull << 32 };

	return memory_outcome(11, words, 1);
}
