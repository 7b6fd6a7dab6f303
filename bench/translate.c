/*
 * How fast blocks are made: of the code of a file (the running program's own if none is named), one
 * behind the other, as user code of 64 bits that is never executed.
 *
 *   translate-bench [FILE [ROUNDS]]
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "../tests/cpu/no_devices.h"
#include "engine/soft/code/code.h"

enum {
	RAM_BYTES = 64 << 20,
	TABLES = 0x10000,
	PAGE = 1 << 12,
	CODE = 2 << 20,
	MOST_CODE_BYTES = 4 << 20,
	DEFAULT_ROUNDS = 10,
	NS_PER_S = 1000000000,
	USER = 3
};

static struct guest_memory memory;

struct made { uint64_t blocks, insns, hot_bytes, host_bytes, ns; };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The first bytes of the segment that is executed, at CODE; how many, 0: none. */
static size_t load_code(const char *name, uint8_t *ram)
{
	FILE *file = fopen(name, "rb");
	Elf64_Phdr segment;
	Elf64_Ehdr head;
	size_t bytes = 0;

	if (!file || fread(&head, sizeof(head), 1, file) != 1)
		return 0;
	for (unsigned n = 0; n < head.e_phnum && !bytes; n++) {
		if (fseek(file, (long)(head.e_phoff + n * sizeof(segment)), SEEK_SET) ||
		    fread(&segment, sizeof(segment), 1, file) != 1)
			break;
		if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X))
			continue;
		bytes = segment.p_filesz < MOST_CODE_BYTES ? segment.p_filesz : MOST_CODE_BYTES;
		if (fseek(file, (long)segment.p_offset, SEEK_SET))
			break;
		bytes = fread(ram + CODE, 1, bytes, file);
	}
	fclose(file);
	return bytes;
}

/* All of it where it is, in pages of 2 MiB. */
static void make_tables(uint8_t *ram)
{
	enum { PRESENT = 7, LARGE = 0x80, LARGE_SHIFT = 21 };
	uint64_t *tables = (uint64_t *)(void *)(ram + TABLES);
	const unsigned entries = PAGE / 8;

	tables[0] = (TABLES + PAGE) | PRESENT;
	tables[entries] = (TABLES + 2 * PAGE) | PRESENT;
	for (unsigned n = 0; n < RAM_BYTES >> LARGE_SHIFT; n++)
		tables[2 * entries + n] = (uint64_t)n << LARGE_SHIFT | PRESENT | LARGE;
}

static struct soft_cpu *begin(void)
{
	struct engine *engine = engine_create(&memory, &engine_options);
	struct soft_cpu *cpu = (struct soft_cpu *)(engine ? engine_cpu_create(engine, &ops, NULL)
							  : NULL);

	if (!cpu)
		abort();
	begin_flat_long_mode(&cpu->state, TABLES);
	cpu->state.cpl = USER;
	return cpu;
}

static struct made make_all(size_t bytes)
{
	struct soft_cpu *cpu = begin();
	struct engine *engine = (struct engine *)cpu->engine;
	const uint32_t mode = soft_mode(cpu);
	struct made made = { .blocks = 0 };
	struct fault fault;
	uint64_t begin_ns = now_ns();

	for (uint64_t at = CODE; at + X86_INSN_MAX_BYTES < CODE + bytes;) {
		const struct block *b;

		cpu->state.rip = at;
		soft_pass(cpu);
		b = soft_find_block(cpu, at, mode, &fault);
		at += b ? b->guest_bytes : 1;
		if (!b)
			continue;
		made.blocks++;
		made.insns += b->insns;
		made.hot_bytes += b->hot_bytes;
		made.host_bytes += b->host_bytes;
	}
	made.ns = now_ns() - begin_ns;
	engine_cpu_destroy(&cpu->base);
	engine_destroy(engine);
	return made;
}

static double each(uint64_t sum, uint64_t count) { return (double)sum / (double)count; }

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "/proc/self/exe";
	const int rounds = argc > 2 ? atoi(argv[2]) : DEFAULT_ROUNDS;
	uint8_t *ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct made best = { .ns = UINT64_MAX };
	size_t bytes;

	if (ram == MAP_FAILED)
		return 70;
	bytes = load_code(name, ram);
	if (!bytes)
		return 66;
	make_tables(ram);
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	for (int n = 0; n < rounds; n++) {
		struct made made = make_all(bytes);

		best = made.ns < best.ns ? made : best;
	}
	printf("translate: %lu blocks of %.1f instructions, %.0f ns a block, %.0f an instruction; "
	       "host bytes an instruction %.1f hot, %.1f in all\n",
	       best.blocks, each(best.insns, best.blocks), each(best.ns, best.blocks),
	       each(best.ns, best.insns), each(best.hot_bytes, best.insns),
	       each(best.host_bytes, best.insns));
	return 0;
}
