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

enum { MIB = 1 << 20, RANGE_PAGES = 512, RANGES = 480, LARGE_BYTES = 2 << 20 };

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

/* As src/vm/devices.c does. */
static void discard(struct bench *bench, uint64_t gfn, uint64_t pages)
{
	const uint64_t gpa = gfn * GUEST_PAGE_BYTES;

	madvise(guest_ram_hva(&bench->memory, gpa), pages * GUEST_PAGE_BYTES, MADV_DONTNEED);
	engine_memory_written(bench->engine, gpa, pages * GUEST_PAGE_BYTES);
}

/*
 * As src/device/dynamic_memory/balloon.c does with messages of RANGES blocks that lie side by side
 * (together), or do not.
 */
static double by_ranges(struct bench *bench, bool together)
{
	const uint64_t pages = bench->bytes / GUEST_PAGE_BYTES;
	const uint64_t step = together ? (uint64_t)RANGES * RANGE_PAGES : RANGE_PAGES;
	double begin;

	write_all(bench);
	begin = now_ms();
	for (uint64_t gfn = 0; gfn < pages; gfn += step) {
		const uint64_t most = pages - gfn < step ? pages - gfn : step;

		for (uint64_t n = 0; n < most; n += RANGE_PAGES)
			if (pages_inflate(&bench->pages, gfn + n, RANGE_PAGES))
				abort();
		discard(bench, gfn, most);
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
	static const char *const names[] = { "one madvise", "blocks side by side",
					     "blocks apart" };
	double least[3] = { 1e9, 1e9, 1e9 };
	struct bench bench;

	make(&bench, bytes, large);
	for (unsigned n = 0; n < rounds; n++) {
		const double took[3] = { by_one_call(&bench), by_ranges(&bench, true),
					 by_ranges(&bench, false) };

		for (unsigned k = 0; k < 3; k++)
			least[k] = took[k] < least[k] ? took[k] : least[k];
	}
	printf("%s pages, %lu MiB, least of %u:\n", large ? "huge" : "small", bytes / MIB, rounds);
	for (unsigned k = 0; k < 3; k++)
		printf("  %-22s %8.2f ms  %6.1f GiB/s  %4.0f %%\n", names[k], least[k],
		       (double)bytes / MIB / 1.024 / least[k], least[0] / least[k] * 100);
}

int main(int argc, char **argv)
{
	const uint64_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1024) * MIB;
	const unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 7;

	measure(bytes, rounds, true);
	measure(bytes, rounds, false);
	return 0;
}
