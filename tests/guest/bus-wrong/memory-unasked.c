/* Wrong: memory given up that nobody asked for. */
#include "../bus-wrong.h"

WRONG_ACT("memory given up that nobody asked for", BROKEN)
{
	const uint64_t words[2] = { 1ull << 33, gpa(scratch) / PAGE_BYTES | 1ull << 40 };

	return memory_outcome(7, words, 2);
}
