/*
 * A block that is executed while its page gives its code up still jumps to others of the page, and
 * what it has written there since is what is executed.
 *
 *   user code   FIRST: compare; write [rdi]; write [rsi]; jump to SECOND
 *               SECOND: read [rbx]; mov al, BEFORE; a jump by the flags; hlt, which faults
 *
 * The jump has become a link, the flags are kept in memory. [rdi] is then the write with which the
 * page becomes data: all its blocks die, FIRST, which is executed, before SECOND. [rsi] is the
 * value in SECOND, which nobody intercepts any more.
 */
#include "engine/soft/code/code.h"
#include "no_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
	RAM_BYTES = 4 << 20,
	PAGE = 1 << 12,
	TABLES = 0x10000,
	CODE = 0x100000,
	SECOND = 0x40, /* in the page of the code */
	VALUE = SECOND + 4,
	PLAIN = 0x800,
	DATA = 0x200000,
	OTHER = 0x280000,
	BEFORE = 0x11,
	AFTER = 0x22,
	WRITES_UNTIL_DATA = 64 /* code/invalidate.c */
};

static uint8_t *ram;
static struct guest_memory memory;
static int failures;

static void expect(bool holds, const char *what)
{
	printf("%s: %s\n", holds ? "ok" : "FAIL", what);
	failures += !holds;
}

static void make_tables(void)
{
	enum { LARGE_PRESENT = 0x87, LARGE_BYTES = 2 << 20, PRESENT = 7 };
	const uint64_t entries[] = { (TABLES + PAGE) | PRESENT, (TABLES + 2 * PAGE) | PRESENT,
				     LARGE_PRESENT, LARGE_BYTES | LARGE_PRESENT };

	memcpy(ram + TABLES, &entries[0], 8);
	memcpy(ram + TABLES + PAGE, &entries[1], 8);
	memcpy(ram + TABLES + 2 * PAGE, &entries[2], 16);
}

static void make_code(void)
{
	static const uint8_t first[] = {
		0x39, 0xc0,              /* cmp eax, eax */
		0x88, 0x17,              /* mov [rdi], dl */
		0x88, 0x16,              /* mov [rsi], dl */
		0xeb, SECOND - 8,        /* jmp to the second */
	};
	static const uint8_t second[] = {
		0x48, 0x8b, 0x0b,        /* mov rcx, [rbx] */
		0xb0, BEFORE,            /* mov al, BEFORE */
		0x74, 0,                 /* jz behind it */
		0xf4,                    /* hlt */
	};

	memcpy(ram + CODE, first, sizeof(first));
	memcpy(ram + CODE + SECOND, second, sizeof(second));
}

/* What is in AL in the end. */
static uint8_t run(struct engine_cpu *cpu, uint64_t rip, uint64_t rdi, uint64_t rsi)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.segment[X86_CS].selector = 0x1b;
	state.x86.segment[X86_CS].attributes = 0xa0fb;
	state.x86.segment[X86_SS].selector = 0x23;
	state.x86.segment[X86_SS].attributes = 0xc0f3;
	state.x86.cpl = 3;
	state.x86.rip = rip;
	state.x86.rflags = 2;
	state.x86.gpr[2] = AFTER;
	state.x86.gpr[3] = DATA;
	state.x86.gpr[6] = rsi;
	state.x86.gpr[7] = rdi;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(cpu) != ENGINE_EXIT_SHUTDOWN)
		abort();
	engine_get(cpu, ENGINE_GENERAL, &state);
	return (uint8_t)state.x86.gpr[0];
}

static void test(struct engine *engine, struct engine_cpu *cpu)
{
	const struct soft_cpu *soft = (const struct soft_cpu *)cpu;
	bool as_before = run(cpu, CODE + SECOND, 0, 0) == BEFORE;
	uint64_t links;

	as_before &= run(cpu, CODE, DATA, OTHER) == BEFORE;
	links = soft->chains;
	as_before &= run(cpu, CODE, DATA, OTHER) == BEFORE;
	expect(as_before && links && soft->chains == links, "the jump is a link");
	for (unsigned n = 1; n < WRITES_UNTIL_DATA; n++)
		engine_memory_written(engine, CODE + PLAIN, 1);
	expect(soft->engine->page_blocks[soft_frame(soft->engine, ram + CODE)] &&
		       !soft->engine->counts.made_again[END_WRITTEN],
	       "the page has its code until the next write");
	expect(run(cpu, CODE, CODE + PLAIN, CODE + VALUE) == AFTER,
	       "what was written is executed, by who was in the page as well");
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
	make_code();
	engine = engine_create(&memory, &options);
	cpu = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!cpu || engine_prepare_thread(cpu))
		return 70;
	test(engine, cpu);
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
