/*
 * A page loses its last code while a processor is on its way to write it: between the look whether
 * a write entry may be made (no: it has code) and the access itself. Who makes code of it again
 * then waits for nobody, so the write has to be told.
 *
 *   a store, a locked addition and a string, each to such a page, are told
 *   to a page that never had code they are not, which is the control
 */
#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/space.h"
#include "no_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
	RAM_BYTES = 4 << 20,
	PAGE = 1 << 12,
	TABLES = 0x10000,
	CODE = 0x20000,
	STACK = 0x30000,
	TARGETS = 0x100000,
	PLAIN = 0x200000,
	OFFSET = 0x800, /* of what is written in its page */
	VALUE = 0x5a,
	HLT = 0xf4
};

static const struct program {
	const char *name;
	uint8_t code[8];
} programs[] = {
	{ "a store", { 0x89, 0x07, HLT } },                 /* mov [rdi], eax */
	{ "a locked addition", { 0xf0, 0x01, 0x07, HLT } }, /* lock add [rdi], eax */
	{ "a string", { 0xf3, 0xaa, HLT } },                /* rep stosb */
};
enum { PROGRAMS = sizeof(programs) / sizeof(programs[0]) };

static uint8_t *ram;
static struct guest_memory memory;
static int failures;

static void expect(bool holds, const char *who, const char *what)
{
	printf("%s: %s %s\n", holds ? "ok" : "FAIL", who, what);
	failures += !holds;
}

/* ---- between the look and the access (the linker's --wrap) ---- */

static uint64_t gives_up; /* the page whose code goes with the next fill for a write */
static unsigned told;

void __real_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found);
void __wrap_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found);
int __real_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault);
int __wrap_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault);
void __real_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes);
void __wrap_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes);

void __wrap_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found)
{
	const uint64_t page = gives_up;

	__real_soft_fill_beside(cpu, at, gva, write, found);
	if (!write || !page)
		return;
	gives_up = 0;
	soft_invalidate(cpu->engine, page, 1);
}

int __wrap_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault)
{
	told++;
	return __real_soft_write(cpu, gva, from, bytes, access, fault);
}

void __wrap_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes)
{
	told++;
	__real_soft_has_written(engine, hva, gpa, bytes);
}

/* ---- the guest ---- */

static void make_tables(void)
{
	enum { LARGE_PRESENT = 0x87, LARGE_BYTES = 2 << 20, PRESENT = 7 };
	const uint64_t entries[] = { (TABLES + PAGE) | PRESENT, (TABLES + 2 * PAGE) | PRESENT,
				     LARGE_PRESENT, LARGE_BYTES | LARGE_PRESENT };

	memcpy(ram + TABLES, &entries[0], 8);
	memcpy(ram + TABLES + PAGE, &entries[1], 8);
	memcpy(ram + TABLES + 2 * PAGE, &entries[2], 16);
}

static void run(struct engine_cpu *cpu, uint64_t rip, uint64_t to)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = rip;
	state.x86.rflags = 2;
	state.x86.gpr[0] = VALUE;
	state.x86.gpr[1] = 1;
	state.x86.gpr[4] = STACK;
	state.x86.gpr[7] = to;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(cpu) != ENGINE_EXIT_HALT)
		abort();
}

static void test(struct engine *engine, struct engine_cpu *cpu, unsigned n)
{
	const uint64_t code = CODE + n * PAGE;
	const uint64_t target = TARGETS + n * PAGE;
	const uint64_t plain = PLAIN + n * PAGE;
	const struct soft_engine *soft = (const struct soft_engine *)engine;
	const uint8_t *flags = &soft->frame_flags[soft_frame(soft, ram + target)];

	memcpy(ram + code, programs[n].code, sizeof(programs[n].code));
	ram[target] = HLT;
	told = 0;
	run(cpu, code, plain + OFFSET);
	expect(ram[plain + OFFSET] == VALUE && !told, programs[n].name,
	       "to a page that never had code is not told");
	run(cpu, target, 0);
	expect(*flags & FRAME_CODE, programs[n].name, "goes to a page that has code");
	gives_up = target;
	run(cpu, code, target + OFFSET);
	expect(!gives_up && !(*flags & FRAME_CODE), programs[n].name,
	       "finds that it has none any more");
	expect(ram[target + OFFSET] == VALUE && told, programs[n].name, "is told all the same");
}

int main(void)
{
	struct engine_options options = { .overhead_bytes = ENGINE_LEAST_OVERHEAD_BYTES,
					  .cpus = 1 };
	struct engine *engine;
	struct engine_cpu *cpu;

	ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		return 70;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	make_tables();
	engine = engine_create(&memory, &options);
	cpu = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!cpu || engine_prepare_thread(cpu))
		return 70;
	for (unsigned n = 0; n < PROGRAMS; n++)
		test(engine, cpu, n);
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
