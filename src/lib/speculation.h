/*
 * Numbers that a guest chooses, after a check that the processor may mispredict. A host address
 * that is formed from such a number goes through here, so that past a mispredicted check it leads
 * to element 0 and not to where the guest points (docs/speculation.md).
 */
#pragma once

#include <stdint.h>

/* index, or 0 when it is not below count; without a branch. */
static inline uint64_t speculation_bound(uint64_t index, uint64_t count)
{
	uint64_t mask;

	/* all ones when it borrows */
	__asm__("cmp %2, %1; sbb %0, %0" : "=r"(mask) : "r"(index), "r"(count) : "cc");
	return index & mask;
}
