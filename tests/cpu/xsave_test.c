/*
 * The XSAVE family on the host's processor and in the engine: FXSAVE, FXRSTOR, XSAVE, XSAVEOPT,
 * XSAVEC, XRSTOR, each with and without REX.W, and LDMXCSR; over every mask, every set of
 * components in use, both forms of the area, and garbage in the header, in MXCSR and in the state.
 * Whether it faults, the area behind it, and the vector state with what of it is in use must agree.
 * Then what a device's access leaves of the YMM registers: all of it, nothing in use that is zero.
 * usage: xsave_test [CASES [SEED]]
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory.h"
#include "x86/state.h"
#include "no_devices.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	AREA = 0x200000,
	AREA_BYTES = 1024,
	TABLES = 0x10000,
	HEADER_WORD = 64,
	MXCSR_WORD = 3,
	MXCSR_MISALIGNED = 1 << 17, /* hosts of one vendor's have it, no model has */
	FX_BYTES = 416,
	X87_REGISTERS_AT = 32,
	XMM_AT = 160,
	YMM_AT = 576,
	TRIES = 200,
	TRIES_AT_ONCE = 8,
	PAUSE_US = 1000
};
enum {
	COMPONENTS = 8 /* sets of three */,
	STATE_BYTES = ENGINE_VECTOR_BYTES,
	HLT = 0xf4,
	RET = 0xc3
};
#define BASE 0x20000000ul
#define COMPACTED (1ull << 63)

struct operation { const char *name; uint8_t code[5], length; bool restores; };
struct outcome { bool fault; uint8_t area[AREA_BYTES]; _Alignas(64) uint8_t state[STATE_BYTES]; };

/* All on [rdi]. */
static const struct operation operations[] = {
	{ "fxsave", { 0x0f, 0xae, 0x07 }, 3, false },
	{ "fxsave64", { 0x48, 0x0f, 0xae, 0x07 }, 4, false },
	{ "fxrstor", { 0x0f, 0xae, 0x0f }, 3, true },
	{ "fxrstor64", { 0x48, 0x0f, 0xae, 0x0f }, 4, true },
	{ "xsave", { 0x0f, 0xae, 0x27 }, 3, false },
	{ "xsave64", { 0x48, 0x0f, 0xae, 0x27 }, 4, false },
	{ "xrstor", { 0x0f, 0xae, 0x2f }, 3, true },
	{ "xrstor64", { 0x48, 0x0f, 0xae, 0x2f }, 4, true },
	{ "xsaveopt", { 0x0f, 0xae, 0x37 }, 3, false },
	{ "xsaveopt64", { 0x48, 0x0f, 0xae, 0x37 }, 4, false },
	{ "xsavec", { 0x0f, 0xc7, 0x27 }, 3, false },
	{ "xsavec64", { 0x48, 0x0f, 0xc7, 0x27 }, 4, false },
	{ "ldmxcsr", { 0x0f, 0xae, 0x57, 0x18 }, 4, true },
};

static uint8_t *const ram = (uint8_t *)BASE;
static struct guest_memory memory;
static struct engine *engine;
static struct engine_cpu *cpu;
static _Alignas(64) uint8_t before[STATE_BYTES];
static uint8_t area[AREA_BYTES];
static struct outcome native, engines;
static struct sigaction of_engine;
static volatile sig_atomic_t is_native;
static stack_t engine_stack;
static sigjmp_buf back;
static uint64_t host_xcr0, seed_state;

static uint64_t rnd(void)
{
	seed_state ^= seed_state << 13;
	seed_state ^= seed_state >> 7;
	seed_state ^= seed_state << 17;
	return seed_state;
}

static uint64_t *words(uint8_t *bytes) { return (uint64_t *)(void *)bytes; }

static void on_fault(int number, siginfo_t *info, void *context)
{
	if (!is_native) {
		of_engine.sa_sigaction(number, info, context);
		return;
	}
	is_native = 0;
	/* it is disarmed in a handler, and this one does not return */
	sigaltstack(&engine_stack, NULL);
	siglongjmp(back, 1);
}

/* The x87 unit's pointers are the host's: a guest has zero there. */
static void clear_pointers(struct outcome *outcome)
{
	enum { POINTERS_AT = 8, POINTERS_BYTES = 16 };

	memset(outcome->area + POINTERS_AT, 0, POINTERS_BYTES);
	memset(outcome->state + POINTERS_AT, 0, POINTERS_BYTES);
}

static void run_native(const struct operation *operation, uint64_t mask)
{
	memcpy(ram + CODE, operation->code, operation->length);
	ram[CODE + operation->length] = RET;
	memcpy(ram + AREA, area, AREA_BYTES);
	native.fault = sigsetjmp(back, 1);
	if (!native.fault) {
		is_native = 1;
		__asm__ volatile("mov $7, %%eax; xor %%edx, %%edx; xrstor64 (%[before])\n\t"
				 "mov %[low], %%eax; mov %[high], %%edx; call *%[code]\n\t"
				 "mov $7, %%eax; xor %%edx, %%edx; xsave64 (%[after])\n\t"
				 "fninit; vzeroall; ldmxcsr %[mxcsr]"
				 :
				 : "D"(ram + AREA), [before] "r"(before), [after] "r"(native.state),
				   [code] "r"(BASE + CODE), [low] "r"((uint32_t)mask),
				   [high] "r"((uint32_t)(mask >> 32)),
				   [mxcsr] "m"((const uint32_t){ 0x1f80 })
				 : "rax", "rdx", "memory");
		is_native = 0;
	}
	memcpy(native.area, ram + AREA, AREA_BYTES);
	clear_pointers(&native);
}

static void run_engine(const struct operation *operation, uint64_t mask)
{
	struct engine_state state;
	struct x86_state *x86 = &state.x86;

	engine_get(cpu, ENGINE_GENERAL, &state);
	memcpy(ram + CODE, operation->code, operation->length);
	ram[CODE + operation->length] = HLT;
	memcpy(ram + AREA, area, AREA_BYTES);
	engine_memory_written(engine, CODE, GUEST_PAGE_BYTES);
	x86->gpr[0] = (uint32_t)mask;
	x86->gpr[2] = mask >> 32;
	x86->gpr[7] = BASE + AREA;
	x86->rip = BASE + CODE;
	x86->rflags = 2;
	memcpy(state.vector, before, STATE_BYTES);
	if (engine_set(cpu, ENGINE_GENERAL | ENGINE_VECTOR, &state))
		exit(70);
	engines.fault = engine_run(cpu) == ENGINE_EXIT_SHUTDOWN;
	memcpy(engines.area, ram + AREA, AREA_BYTES);
	engine_get(cpu, ENGINE_VECTOR, &state);
	memcpy(engines.state, state.vector, STATE_BYTES);
	clear_pointers(&engines);
	/* XSAVE writes nothing there */
	memset(engines.state + FX_BYTES, 0, 8 * HEADER_WORD - FX_BYTES);
}

static void random_state(uint8_t *state, uint64_t in_use)
{
	for (unsigned n = 0; n < STATE_BYTES / 8; n++)
		words(state)[n] = rnd();
	memset(state + 8 * HEADER_WORD, 0, 64);
	words(state)[HEADER_WORD] = in_use;
	words(state)[MXCSR_WORD] &= 0xffffffff0000ffff;
}

/* Bits that no component of the host's has: what the engine refuses the host must, too. */
static uint64_t garbage(void) { return rnd() % 8 ? 0 : (1ull << rnd() % 63) & ~(host_xcr0 | 7); }

static void random_area(uint64_t in_use, bool compacted)
{
	uint64_t *header = words(area) + HEADER_WORD;

	random_state(area, in_use);
	for (unsigned n = STATE_BYTES; n < AREA_BYTES; n++)
		area[n] = (uint8_t)rnd();
	header[0] |= garbage();
	header[1] = rnd() % 4 ? in_use : 0;
	header[1] |= COMPACTED | rnd() % COMPONENTS;
	if (!compacted)
		header[1] = 0;
	header[1] |= garbage();
	if (!(rnd() % 8))
		header[2 + rnd() % 6] = rnd();
	if (!(rnd() % 3))
		words(area)[MXCSR_WORD] = rnd() & ~(uint64_t)MXCSR_MISALIGNED;
}

static bool is_zero(const uint8_t *bytes, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		if (bytes[n])
			return false;
	return true;
}

/*
 * A component in its initial state may count as in use: who takes the processor in the middle gives
 * it back with SSE in use when MXCSR alone is not as it is initially.
 */
static uint64_t in_use(const uint8_t *state)
{
	enum { X87 = 1, SSE = 2, AVX = 4, CONTROL_INITIALLY = 0x37f };
	uint64_t used = *(const uint64_t *)(const void *)(state + 8 * HEADER_WORD);
	uint16_t control;

	memcpy(&control, state, sizeof(control));
	if (control == CONTROL_INITIALLY && is_zero(state + 2, 6) &&
	    is_zero(state + X87_REGISTERS_AT, XMM_AT - X87_REGISTERS_AT))
		used &= ~(uint64_t)X87;
	if (is_zero(state + XMM_AT, FX_BYTES - XMM_AT))
		used &= ~(uint64_t)SSE;
	if (is_zero(state + YMM_AT, STATE_BYTES - YMM_AT))
		used &= ~(uint64_t)AVX;
	return used;
}

static void forget_initial(struct outcome *outcome)
{
	words(outcome->state)[HEADER_WORD] = in_use(outcome->state);
}

static const char *difference(void)
{
	if (native.fault != engines.fault)
		return native.fault ? "no fault" : "a fault";
	if (memcmp(native.area, engines.area, AREA_BYTES))
		return "the area";
	if (!native.fault && words(native.state)[HEADER_WORD] != words(engines.state)[HEADER_WORD])
		return "what is in use";
	return !native.fault && memcmp(native.state, engines.state, STATE_BYTES) ? "the state"
										 : NULL;
}

/*
 * The host's kernel may take the processor from either of the two in the middle, and gives it back
 * with components in use that were not, or the other way round: they are in their initial state, so
 * that both is right. What is a fault of the engine's is there each time.
 */
static const char *try_once(const struct operation *operation, uint64_t asked)
{
	memset(&native, 0, sizeof(native));
	memset(&engines, 0, sizeof(engines));
	run_native(operation, asked);
	run_engine(operation, asked);
	forget_initial(&native);
	forget_initial(&engines);
	return difference();
}

static unsigned try_case(const struct operation *operation, unsigned mask, unsigned used,
			 unsigned stored, bool compacted)
{
	uint64_t asked = mask | (rnd() & ~(host_xcr0 | 7));
	const char *what = "";

	random_state(before, used);
	random_area(stored, compacted);
	for (unsigned n = 0; what && n < TRIES; n++) {
		if (n && n % TRIES_AT_ONCE == 0)
			usleep(PAUSE_US);
		what = try_once(operation, asked);
	}
	if (what)
		printf("%s, mask %x, in use %x, header %lx %lx, MXCSR %x: differs in %s "
		       "(%lx, %lx)\n",
		       operation->name, mask, used, words(area)[HEADER_WORD],
		       words(area)[HEADER_WORD + 1], (uint32_t)words(area)[MXCSR_WORD], what,
		       words(native.state)[HEADER_WORD], words(engines.state)[HEADER_WORD]);
	return what != NULL;
}

/*
 * OUT, and XSAVE of what it left: upper halves as they were before it, in use if one is not zero. A
 * processor lets SSE instructions wait for registers with upper halves in use. lowest: which one
 * has something there; 16: none.
 */
static bool stays_outside(unsigned lowest)
{
	enum { REGISTER_BYTES = 16, AVX = 4, ALL = 7 };
	static const struct operation out_and_save = {
		"out", { 0xe6, 0x80, 0x0f, 0xae, 0x27 }, 5, false
	};
	uint8_t *upper = before + YMM_AT;
	uint64_t header;
	bool is_used;

	random_state(before, ALL);
	memset(upper, 0, STATE_BYTES - YMM_AT);
	for (unsigned n = lowest; n < 16; n += 5)
		upper[n * REGISTER_BYTES + rnd() % REGISTER_BYTES] = (uint8_t)(rnd() | 1);
	memset(area, 0, AREA_BYTES);
	run_engine(&out_and_save, ALL);
	memcpy(&header, engines.area + HEADER_WORD * sizeof(header), sizeof(header));
	is_used = header & AVX;
	return !engines.fault && is_used == (lowest < 16) &&
	       !memcmp(engines.area + XMM_AT, before + XMM_AT, FX_BYTES - XMM_AT) &&
	       (!is_used || !memcmp(engines.area + YMM_AT, upper, STATE_BYTES - YMM_AT));
}

static unsigned try_outside(void)
{
	unsigned bad = 0;

	for (unsigned n = 0; n <= 16; n++) {
		if (stays_outside(n))
			continue;
		printf("out with upper halves from YMM%u on: in use %lx\n", n,
		       words(engines.area)[HEADER_WORD]);
		bad++;
	}
	return bad;
}

static void make_guest(void)
{
	const size_t bytes = guest_memory_footprint_bytes(RAM_BYTES);
	uint64_t *tables = words(ram + TABLES);
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *x86 = &state.x86;

	if (mmap(ram, bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ram)
		exit(70);
	tables[0] = (TABLES + GUEST_PAGE_BYTES) | 3;
	tables[512] = (TABLES + 0x2000) | 3;
	for (unsigned n = 0; n < RAM_BYTES >> 21; n++)
		tables[1024 + (BASE >> 21) + n] = (uint64_t)n << 21 | 0x83;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	engine = engine_create(&memory, &engine_options);
	cpu = engine_cpu_create(engine, &ops, NULL);
	begin_long_mode(x86, TABLES);
	engine_set(cpu, ENGINE_SEGMENTS | ENGINE_CONTROL, &state);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 4;
	unsigned long cases = 0;
	unsigned long bad = 0;
	unsigned long faults = 0;
	const unsigned count = sizeof(operations) / sizeof(operations[0]);
	struct sigaction action = { .sa_sigaction = on_fault,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	uint32_t low, high;

	seed_state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + 1;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	host_xcr0 = (uint64_t)high << 32 | low;
	make_guest();
	if (engine_prepare_thread(cpu) || sigaltstack(NULL, &engine_stack))
		return 70;
	sigaction(SIGSEGV, &action, &of_engine);
	for (unsigned long n = 0;
	     n < rounds * count * COMPONENTS * COMPONENTS * COMPONENTS * 2 && bad < 40;
	     n++, cases++) {
		unsigned long at = n / count;

		bad += try_case(&operations[n % count], at % 8, at / 8 % 8, at / 64 % 8,
				at / 512 % 2);
		faults += native.fault;
	}
	bad += try_outside();
	printf("xsave_test: %lu cases, %lu faulted, %lu differences\n", cases, faults, bad);
	return bad != 0;
}
