/*
 * Programs in assembly (programs.S), each with the result that it must give: natively, in the
 * engine block by block as always, and in the engine single-stepped (every instruction a block of
 * its own, chaining off). Ends 0 when all agree.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/memory.h"
#include "x86/state.h"
#include "no_devices.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	DATA = 0x200000,
	DATA_BYTES = 8192,
	STACK = 0x300000,
	TABLES = 0x10000,
	IDT = 0x8000,
	GDT = 0x9000,
	TRAP = 0x110000
};
#define BASE 0x20000000ul

struct program { const char *name; uint64_t result; const uint8_t *code, *end; };
extern const struct program programs[], programs_end[];

static uint8_t *const ram = (uint8_t *)BASE;
static struct guest_memory memory;

static void put64(uint64_t gpa, uint64_t value) { memcpy(ram + gpa, &value, 8); }

/* An identity map of the RAM at BASE, and a #DB handler that returns. */
static void make_tables(void)
{
	const uint64_t handler = BASE + TRAP;

	put64(TABLES, (TABLES + GUEST_PAGE_BYTES) | 3);
	put64(TABLES + GUEST_PAGE_BYTES, (TABLES + 0x2000) | 3);
	for (unsigned n = 0; n < RAM_BYTES >> 21; n++)
		put64(TABLES + 0x2000 + 8 * ((BASE >> 21) + n), (uint64_t)n << 21 | 0x83);
	put64(GDT + 8, 0x00af9b000000ffff);
	put64(GDT + 16, 0x00cf93000000ffff);
	put64(IDT + 16,
	      (handler & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48);
	put64(IDT + 24, handler >> 32);
	ram[TRAP] = 0x48, ram[TRAP + 1] = 0xcf; /* iretq */
}

static struct engine *make_engine(struct engine_cpu **ret_cpu)
{
	struct engine *engine;
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *x86 = &state.x86;

	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	engine = engine_create(&memory, &engine_options);
	*ret_cpu = engine_cpu_create(engine, &ops, NULL);
	begin_flat_long_mode(x86, TABLES);
	x86->gdtr = (struct x86_table){ BASE + GDT, 23 };
	x86->idtr = (struct x86_table){ BASE + IDT, (GUEST_PAGE_BYTES - 1) };
	engine_set(*ret_cpu, ENGINE_SEGMENTS | ENGINE_CONTROL, &state);
	return engine;
}

/*
 * Where a program returns to: pushf; and qword [rsp], ~TF; popf; hlt. A halt that is stepped over
 * is none.
 */
static const uint8_t end_of_program[] = { 0x9c, 0x48, 0x81, 0x24, 0x24, 0xff,
					  0xfe, 0xff, 0xff, 0x9d, 0xf4 };

static uint64_t in_engine(struct engine *engine, struct engine_cpu *cpu, bool step)
{
	struct engine_state state;
	struct x86_state *x86 = &state.x86;
	bool halted;

	memset(ram + DATA, 0, DATA_BYTES);
	engine_memory_written(engine, CODE, GUEST_PAGE_BYTES);
	put64(STACK, BASE + CODE - 16);
	memcpy(ram + CODE - 16, end_of_program, sizeof(end_of_program));
	engine_get(cpu, ENGINE_GENERAL, &state);
	x86->gpr[4] = BASE + STACK;
	x86->gpr[7] = BASE + DATA;
	x86->rip = BASE + CODE;
	x86->rflags = 2 | (step ? FLAG_TF : 0);
	engine_set(cpu, ENGINE_GENERAL, &state);
	halted = engine_run(cpu) == ENGINE_EXIT_HALT;
	engine_get(cpu, ENGINE_GENERAL, &state);
	return halted ? x86->gpr[0] : ~x86->gpr[0];
}

static uint64_t natively(void)
{
	uint64_t result;
	uint8_t *data = ram + DATA;

	__asm__ volatile("call *%%rax"
			 : "=a"(result), "+D"(data)
			 : "a"(BASE + CODE)
			 : "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13",
			   "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm15", "memory", "cc");
	return result;
}

static int check(const char *name, const char *how, uint64_t got, uint64_t want)
{
	if (got != want)
		printf("FAIL %s, %s: %lx, not %lx\n", name, how, got, want);
	return got != want;
}

/*
 * A fault of the guest's while its stack pointer, a number, lies inside the engine's signal stack:
 * the kernel may not write below it, as it does for a signal that comes while a handler runs.
 */
static int check_signal_stack(struct engine *engine, struct engine_cpu *cpu)
{
	enum { MIDDLE = 16 << 10, PATTERN = 0x5a };
	static const uint8_t divide[] = { 0x31, 0xc9, 0xf7, 0xf1 }; /* xor ecx, ecx; div ecx */
	struct engine_state state;
	struct x86_state *x86 = &state.x86;
	uint8_t *bottom;
	stack_t stack;

	if (sigaltstack(NULL, &stack))
		return 1;
	bottom = stack.ss_sp;
	memset(bottom, PATTERN, MIDDLE);
	memcpy(ram + CODE, divide, sizeof(divide));
	engine_memory_written(engine, CODE, GUEST_PAGE_BYTES);
	engine_get(cpu, ENGINE_GENERAL, &state);
	x86->gpr[4] = (uint64_t)(bottom + MIDDLE);
	x86->rip = BASE + CODE;
	x86->rflags = 2;
	engine_set(cpu, ENGINE_GENERAL, &state);
	if (engine_run(cpu) != ENGINE_EXIT_SHUTDOWN) /* no handler in the IDT */
		return check("a fault on the signal stack", "its exit", 0, 1);
	for (unsigned n = 0; n < MIDDLE; n++)
		if (bottom[n] != PATTERN)
			return check("a fault on the signal stack", "bytes below the stack pointer",
				     bottom[n], PATTERN);
	return 0;
}

/*
 * A locked operand across a cache line is not left to the host's processor: it would stop all the
 * others for it.
 */
static int check_split_locks(struct engine *engine, struct engine_cpu *cpu)
{
	enum { TIMES = 7 };
	/* mov ecx, TIMES; 1: lock inc dword [rdi]; xchg [rdi + 64], eax; dec ecx; jnz 1b; hlt */
	static const uint8_t code[] = { 0xb9, TIMES, 0,    0,    0,    0xf0, 0xff, 0x07,
					0x87, 0x47,  0x40, 0xff, 0xc9, 0x75, 0xf6, 0xf4 };
	struct engine_state state;
	struct x86_state *x86 = &state.x86;
	char text[400];
	uint32_t sum;

	memcpy(ram + CODE, code, sizeof(code));
	memset(ram + DATA, 0, DATA_BYTES);
	engine_memory_written(engine, CODE, GUEST_PAGE_BYTES);
	engine_get(cpu, ENGINE_GENERAL, &state);
	x86->gpr[7] = BASE + DATA + 62;
	x86->rip = BASE + CODE;
	x86->rflags = 2;
	engine_set(cpu, ENGINE_GENERAL, &state);
	if (engine_run(cpu) != ENGINE_EXIT_HALT)
		return check("split locks", "their exit", 0, 1);
	memcpy(&sum, ram + DATA + 62, sizeof(sum));
	engine_statistics(cpu, text, sizeof(text));
	return check("split locks", "their sum", sum, TIMES) +
	       check("split locks", "how many", !!strstr(text, "split locks 14"), 1);
}

int main(void)
{
	struct engine_cpu *cpu;
	struct engine *engine;
	int failures = 0, count = 0;

	if (mmap(ram, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ram)
		return 70;
	make_tables();
	engine = make_engine(&cpu);
	if (engine_prepare_thread(cpu))
		return 70;
	for (const struct program *program = programs; program < programs_end; program++, count++) {
		memcpy(ram + CODE, program->code, (size_t)(program->end - program->code));
		memset(ram + DATA, 0, DATA_BYTES);
		failures += check(program->name, "natively", natively(), program->result);
		failures += check(program->name, "in the engine", in_engine(engine, cpu, false),
				  program->result);
		failures += check(program->name, "in the engine, once more",
				  in_engine(engine, cpu, false), program->result);
		failures += check(program->name, "in the engine, step by step",
				  in_engine(engine, cpu, true), program->result);
	}
	failures += check_split_locks(engine, cpu);
	failures += check_signal_stack(engine, cpu);
	printf("program_test: %d programs, %d differences\n", count, failures);
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
