/*
 * Runs a fuzz target without libFuzzer: seeds of the target, mutated. usage: fuzz-NAME [COUNT
 * [SEED]] or fuzz-NAME @FILE to repeat one input. A crash leaves its input in fuzz-crash.bin by way
 * of the file written before each run when asked: FUZZ_KEEP=1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { PAGE = 4096 };

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void mutate(uint8_t *data, size_t *bytes)
{
	static const uint64_t values[] = { 0,
					   1,
					   0x7f,
					   0x80,
					   0xff,
					   0x7fff,
					   0x8000,
					   0xffff,
					   0x7fffffff,
					   0x80000000,
					   0xffffffff,
					   0x7fffffffffffffff,
					   0x8000000000000000,
					   ~0ull,
					   PAGE,
					   PAGE - 1,
					   0xfffffffffffff000 };

	for (unsigned n = (unsigned)(rnd() % 8) + 1; n-- && *bytes;) {
		size_t at = rnd() % *bytes;
		size_t width = (size_t)1 << rnd() % 4;
		uint64_t value = values[rnd() % (sizeof(values) / sizeof(values[0]))];

		switch (rnd() % 5) {
		case 0: data[at] ^= (uint8_t)(1u << rnd() % 8); break;
		case 1: data[at] = (uint8_t)rnd(); break;
		case 2:
			memcpy(data + at, &value, at + width <= *bytes ? width : *bytes - at);
			break;
		case 3: data[at] = (uint8_t)(data[at] + rnd() % 33 - 16); break;
		default:
			if (rnd() % 8 == 0)
				*bytes = at + 1;
		}
	}
}

int main(int argc, char **argv)
{
	static uint8_t data[FUZZ_MAX_BYTES];
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
	size_t bytes;

	if (argc > 1 && argv[1][0] == '@') {
		FILE *file = fopen(argv[1] + 1, "rb");

		bytes = file ? fread(data, 1, sizeof(data), file) : 0;
		return LLVMFuzzerTestOneInput(data, bytes);
	}
	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned long n = 0; n < count; n++) {
		bytes = fuzz_seed((unsigned)(rnd() % 64), data);
		mutate(data, &bytes);
		if (getenv("FUZZ_KEEP")) {
			FILE *file = fopen("fuzz-crash.bin", "wb");

			fwrite(data, 1, bytes, file);
			fclose(file);
		}
		LLVMFuzzerTestOneInput(data, bytes);
	}
	printf("%lu inputs\n", count);
	return 0;
}
