/*
 * The decoder: every string of bytes, every mode, every length that is there; results must be
 * consistent.
 */
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const unsigned modes[] = { 16, 32, 64 };

	for (int m = 0; m < 3; m++)
		for (size_t at = 0; at < bytes && at < 64; at++) {
			size_t left = bytes - at < 15 ? bytes - at : 15;
			uint8_t *exact = malloc(left);
			struct x86_insn insn, shorter;

			memcpy(exact, data + at, left);
			if (!x86_decode(exact, left, modes[m], &insn)) {
				if (!insn.length || insn.length > left)
					abort();
				/*
				 * the same with exactly its bytes, and never a different answer
				 * with fewer
				 */
				if (x86_decode(exact, insn.length, modes[m], &shorter) ||
				    shorter.length != insn.length)
					abort();
				if (insn.length > 1 &&
				    !x86_decode(exact, insn.length - 1u, modes[m], &shorter))
					abort();
			}
			free(exact);
		}
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const uint8_t starts[8][8] = { { 0x66, 0xf2, 0xf3, 0x48, 0x0f, 0x38 },
					      { 0xc4, 0xe2, 0x79 },
					      { 0xc5, 0xf8 },
					      { 0x0f, 0x3a },
					      { 0x67, 0x8b, 0x04, 0x25 },
					      { 0xf0, 0x0f, 0xb1 },
					      { 0x48, 0xb8 },
					      { 0xd9, 0xc0 } };

	for (unsigned k = 0; k < 64; k++)
		data[k] = (uint8_t)(k * 37 + n * 101);
	memcpy(data + n % 8, starts[n % 8], 8);
	return 64;
}
