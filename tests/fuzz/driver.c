/*
 * Runs a fuzz target without libFuzzer: seeds of the target, mutated. usage: fuzz-NAME [COUNT
 * [SEED [KIND]]]; KIND is the first byte of every input, where a target chooses by that. fuzz-NAME
 * @FILE repeats one input. FUZZ_MESSAGES=COUNT: no more inputs once there were so many messages.
 * FUZZ_KEEP=FILE: the input that runs is in FILE, so that it is there when the target has crashed.
 * An input that takes longer than ten seconds of processor time ends the program like a crash, and
 * so does more memory than MEMORY_MAX (not under a sanitizer, whose own memory counts).
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

enum { PAGE = 4096, SECONDS_MAX = 10, MEMORY_MAX_KIB = 1 << 20 };

struct input {
	uint8_t data[FUZZ_MAX_BYTES];
	uint64_t bytes;
};

static uint64_t state, messages;

void fuzz_message(void) { messages++; }

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

/* In a file, where that is asked for: what is written to it is there also after a crash. */
static struct input *input_new(void)
{
	static struct input own;
	const char *path = getenv("FUZZ_KEEP");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	void *shared = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, sizeof(own)))
		shared = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return shared == MAP_FAILED ? &own : shared;
}

static int repeat(const char *path, struct input *input)
{
	FILE *file = fopen(path, "rb");
	size_t bytes = file ? fread(input, 1, sizeof(*input), file) : 0;

	if (bytes == sizeof(*input))
		bytes = input->bytes;
	if (file)
		fclose(file);
	return LLVMFuzzerTestOneInput(input->data, bytes);
}

/* `kind`: NULL, or the first byte that it has to have. */
static size_t seed(uint8_t *data, const char *kind)
{
	size_t bytes;

	do
		bytes = fuzz_seed((unsigned)(rnd() % 64), data);
	while (kind && data[0] != strtoul(kind, NULL, 0));
	return bytes;
}

static void watch(void)
{
	const struct itimerval limit = { .it_value = { .tv_sec = SECONDS_MAX } };

	setitimer(ITIMER_VIRTUAL, &limit, NULL);
}

int main(int argc, char **argv)
{
	struct input *input = input_new();
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
	const char *kind = argc > 3 ? argv[3] : NULL;
	const char *most_messages = getenv("FUZZ_MESSAGES");
	const uint64_t messages_most =
		most_messages ? strtoull(most_messages, NULL, 0) : UINT64_MAX;
	unsigned long n = 0;
	struct rusage used;
	double seconds;

	/* large pieces of memory are not given back and asked for again with every input */
	mallopt(M_MMAP_THRESHOLD, 1 << 28);
	mallopt(M_TRIM_THRESHOLD, 1 << 28);
	if (argc > 1 && argv[1][0] == '@')
		return repeat(argv[1] + 1, input);
	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	for (; n < count && messages < messages_most; n++) {
		size_t bytes = seed(input->data, kind);

		mutate(input->data, &bytes);
		if (kind)
			input->data[0] = (uint8_t)strtoul(kind, NULL, 0);
		input->bytes = bytes;
		if (n % 64 == 0)
			watch();
		LLVMFuzzerTestOneInput(input->data, bytes);
	}
	getrusage(RUSAGE_SELF, &used);
	seconds = (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6 +
		  (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6;
	printf("%lu inputs, %lu messages, %.0f inputs a second of the processor, %ld MiB\n", n,
	       messages, seconds > 0 ? (double)n / seconds : 0, used.ru_maxrss >> 10);
#ifndef __SANITIZE_ADDRESS__
	return used.ru_maxrss > MEMORY_MAX_KIB;
#else
	return 0;
#endif
}
