/*
 * Two pieces of code in two pages that lead round and round, for tests of how jumps from one page
 * to another are found again. What comes first is each test's own.
 *
 *   SECOND   dl = whether the flags came; rbx += rdx; dec ecx; jnz to where a round begins; hlt
 */
#pragma once

#include <string.h>

#include "bare_guest.h"

enum {
	SECOND = 0x200000, /* in a large page of its own */
	ADDED = SECOND + 3,
	ADDITION_BYTES = 4
};

static inline void put_rel32(uint8_t *at, uint64_t from, uint64_t to)
{
	int32_t rel = (int32_t)(to - (from + sizeof(rel)));

	memcpy(at, &rel, sizeof(rel));
}

/* rbx = rbx + rdx << log2 */
static inline void put_addition(uint64_t gpa, unsigned log2)
{
	const uint8_t lea[ADDITION_BYTES] = { 0x48, 0x8d, 0x1c, (uint8_t)(0x13 | log2 << 6) };

	memcpy(ram + gpa, lea, sizeof(lea));
}

/* The second part, at SECOND when it is executed; a round begins at this address. */
static inline void put_second(uint64_t gpa, unsigned log2, uint64_t round)
{
	static const uint8_t code[] = { 0x0f, 0x94, 0xc2,                    /* setz dl */
					0, 0, 0, 0,                          /* lea */
					0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0, /* dec ecx; jnz */
					HLT };
	enum { JNZ_REL = 11 };

	memcpy(ram + gpa, code, sizeof(code));
	put_addition(gpa + ADDED - SECOND, log2);
	put_rel32(ram + gpa + JNZ_REL, SECOND + JNZ_REL, round);
}
