/*
 * How fast instructions are decoded: over random bytes, and over the code of a file (the running
 * program's own if none is named), in nanoseconds an instruction. Usage: decode-bench [FILE
 * [ROUNDS]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "x86/decode.h"

enum { RANDOM_BYTES = 1 << 16, DEFAULT_ROUNDS = 60, CODE_BITS = 64, NS_PER_S = 1000000000 };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Nanoseconds an instruction; bytes that are none are stepped over one by one. */
static double decode_all(const uint8_t *bytes, size_t count)
{
	uint64_t start = now_ns();
	unsigned long instructions = 0;
	struct x86_insn insn;

	for (size_t at = 0; at + X86_INSN_MAX_BYTES <= count; instructions++)
		at += x86_decode(bytes + at, X86_INSN_MAX_BYTES, CODE_BITS, &insn) ? 1
										   : insn.length;
	return instructions ? (double)(now_ns() - start) / (double)instructions : 0;
}

static double best(const uint8_t *bytes, size_t count, int rounds)
{
	double least = 0;

	for (int n = 0; n < rounds; n++) {
		double ns = decode_all(bytes, count);

		if (!n || ns < least)
			least = ns;
	}
	return least;
}

static uint8_t *read_file(const char *name, size_t *ret_bytes)
{
	FILE *file = fopen(name, "rb");
	uint8_t *bytes;
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) <= 0 ||
	    fseek(file, 0, SEEK_SET))
		return NULL;
	bytes = malloc((size_t)size);
	*ret_bytes = bytes ? fread(bytes, 1, (size_t)size, file) : 0;
	fclose(file);
	return bytes;
}

int main(int argc, char **argv)
{
	static uint8_t noise[RANDOM_BYTES];
	const char *name = argc > 1 ? argv[1] : "/proc/self/exe";
	int rounds = argc > 2 ? atoi(argv[2]) : DEFAULT_ROUNDS;
	size_t bytes = 0;
	uint8_t *code = read_file(name, &bytes);

	if (!code)
		return 66;
	srand(1);
	for (size_t n = 0; n < sizeof(noise); n++)
		noise[n] = (uint8_t)(rand() >> 7);
	printf("decode: %.1f ns an instruction of random bytes, %.1f of %s\n",
	       best(noise, sizeof(noise), rounds), best(code, bytes, rounds), name);
	free(code);
	return 0;
}
