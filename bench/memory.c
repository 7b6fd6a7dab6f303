/*
 * The host's side of giving memory back: what the guest names is checked, put into the balloon's
 * map, discarded and forgotten by the engine, range by range; for comparison one madvise() over the
 * same memory. In turns, each over memory that was written before; of huge pages and of small ones.
 *
 *     memory-bench [MEBIBYTES [ROUNDS]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "device/dynamic_memory/pages.h"
#include "engine/engine.h"

enum { MIB = 1 << 20, RANGE_PAGES = 512, LARGE_BYTES = 2 << 20 };

struct bench {
	struct guest_memory memory;
	struct pages pages;
	struct engine *engine;
	uint64_t bytes;
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void write_all(const struct bench *bench)
{
	for (uint64_t at = 0; at < bench->bytes; at += GUEST_PAGE_BYTES)
		bench->memory.ram[at] = 1;
}

static double by_one_call(struct bench *bench)
{
	double begin;

	write_all(bench);
	begin = now_ms();
	madvise(bench->memory.ram, bench->bytes, MADV_DONTNEED);
	return now_ms() - begin;
}

/* As src/device/dynamic_memory/balloon.c and src/vm/devices.c do. */
static double by_ranges(struct bench *bench)
{
	double begin;

	write_all(bench);
	begin = now_ms();
	for (uint64_t gfn = 0; gfn < bench->bytes / GUEST_PAGE_BYTES; gfn += RANGE_PAGES) {
		const uint64_t gpa = gfn * GUEST_PAGE_BYTES;

		if (pages_inflate(&bench->pages, gfn, RANGE_PAGES))
			abort();
		madvise(guest_ram_hva(&bench->memory, gpa), RANGE_PAGES * GUEST_PAGE_BYTES,
			MADV_DONTNEED);
		engine_memory_written(bench->engine, gpa, RANGE_PAGES * GUEST_PAGE_BYTES);
	}
	begin = now_ms() - begin;
	pages_deflate_all(&bench->pages);
	return begin;
}

static void make(struct bench *bench, uint64_t bytes, bool large)
{
	static const struct engine_options options = { .overhead_bytes = 512ull << 20, .cpus = 1 };
	const uint64_t footprint = guest_memory_footprint_bytes(bytes) + LARGE_BYTES;
	uint8_t *ram = mmap(NULL, footprint, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ram == MAP_FAILED)
		abort();
	ram += LARGE_BYTES - (uintptr_t)ram % LARGE_BYTES;
	madvise(ram, bytes, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	*bench = (struct bench){ .bytes = bytes };
	guest_memory_init(&bench->memory, ram, bytes, bytes);
	bench->engine = engine_create(&bench->memory, &options);
	if (!bench->engine || pages_make(&bench->pages, &bench->memory, 128 << 20))
		abort();
}

static void measure(uint64_t bytes, unsigned rounds, bool large)
{
	struct bench bench;
	double one = 1e9;
	double ranges = 1e9;

	make(&bench, bytes, large);
	for (unsigned n = 0; n < rounds; n++) {
		const double first = by_one_call(&bench);
		const double second = by_ranges(&bench);

		one = first < one ? first : one;
		ranges = second < ranges ? second : ranges;
	}
	printf("%s pages, %lu MiB, least of %u: one madvise %.2f ms (%.1f GiB/s), "
	       "by ranges of 2 MiB %.2f ms (%.1f GiB/s): %.0f %%\n",
	       large ? "huge" : "small", bytes / MIB, rounds, one, (double)bytes / MIB / 1.024 / one,
	       ranges, (double)bytes / MIB / 1.024 / ranges, one / ranges * 100);
}

int main(int argc, char **argv)
{
	const uint64_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1024) * MIB;
	const unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 7;

	measure(bytes, rounds, true);
	measure(bytes, rounds, false);
	return 0;
}
