/*
 * Random programs with random state, on the host's processor and in the engine, in one process:
 * general, x87, SSE and AVX registers, flags and memory must agree, and so must where a program
 * faulted. Guest memory is mapped where the guest sees it, so both run on the same bytes. A program
 * is a run of instructions, each with its base register set before it. A difference is reduced to
 * the instructions that it needs. usage: differential_test [INSTRUCTIONS [SEED]]
 *
 * Left to other tests: control flow, privilege, segments. Not compared: flags at a fault in the
 * middle of a block, x87 instruction and operand pointers (docs/engine.md, known deviations);
 * programs that leave a non-canonical stack pointer.
 */
#include <signal.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "memory/memory.h"
#include "x86/state.h"
#include "no_devices.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	DATA = 0x200000,
	DATA_BYTES = 8192,
	TABLES = 0x10000,
	UNITS = 32,
	FX_BYTES = 512,
	YMM_AT = 576
};
#define BASE 0x20000000ul

struct unit { uint8_t bytes[48], length; bool off; };
struct result {
	uint64_t gpr[16], flags, rip;
	uint8_t vector[ENGINE_VECTOR_BYTES], data[DATA_BYTES];
	bool fault;
};

static uint8_t *const ram = (uint8_t *)BASE;
static struct guest_memory memory;
static struct engine *engine;
static struct engine_cpu *cpu;
static struct engine_state state;
static struct unit program[UNITS];
static uint64_t in[16], in_flags, data_seed;
static uint8_t in_vector[ENGINE_VECTOR_BYTES];
static struct result native, engines;
static volatile sig_atomic_t is_native;
static struct sigaction of_engine[65];
static stack_t engine_stack;
static sigjmp_buf back;

static uint64_t seed_state;
static uint64_t rnd(void)
{
	seed_state ^= seed_state << 13;
	seed_state ^= seed_state >> 7;
	seed_state ^= seed_state << 17;
	return seed_state;
}

/* ---- on the host ---- */

static const int greg[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
			      REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
			      REG_R12, REG_R13, REG_R14, REG_R15 };

static void on_start(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	uint8_t *area = (uint8_t *)interrupted->uc_mcontext.fpregs;

	(void)number;
	(void)info;
	for (int n = 0; n < 16; n++)
		interrupted->uc_mcontext.gregs[greg[n]] = (greg_t)in[n];
	interrupted->uc_mcontext.gregs[REG_EFL] = (greg_t)(0x202 | in_flags);
	interrupted->uc_mcontext.gregs[REG_RIP] = (greg_t)(BASE + CODE);
	memcpy(area, in_vector, 464); /* the rest up to 512 is the kernel's */
	*(uint64_t *)(void *)(area + FX_BYTES) |= 7;
	memcpy(area + YMM_AT, in_vector + YMM_AT, 256);
	is_native = 1;
}

static void on_end(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	uint8_t *area = (uint8_t *)interrupted->uc_mcontext.fpregs;

	if (!is_native) {
		of_engine[number].sa_sigaction(number, info, context);
		return;
	}
	is_native = 0;
	for (int n = 0; n < 16; n++)
		native.gpr[n] = (uint64_t)interrupted->uc_mcontext.gregs[greg[n]];
	native.flags = (uint64_t)interrupted->uc_mcontext.gregs[REG_EFL] & FLAGS_ARITHMETIC;
	native.rip = (uint64_t)interrupted->uc_mcontext.gregs[REG_RIP];
	native.fault = number != SIGTRAP;
	memcpy(native.vector, area, FX_BYTES);
	if (*(uint64_t *)(void *)(area + FX_BYTES) & 4)
		memcpy(native.vector + YMM_AT, area + YMM_AT, 256);
	else
		memset(native.vector + YMM_AT, 0, 256);
	/* it is disarmed in a handler, and this one does not return */
	sigaltstack(&engine_stack, NULL);
	siglongjmp(back, 1);
}

static void install(void)
{
	static const int ends[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction start = { .sa_sigaction = on_start, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction end = { .sa_sigaction = on_end,
				 .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	sigaction(SIGUSR1, &start, NULL);
	for (int n = 0; n < 5; n++)
		sigaction(ends[n], &end, &of_engine[ends[n]]);
}

/* ---- programs ---- */

/* Only what is translated as data: the rest has its own tests. */
static bool eligible(const struct x86_insn *insn)
{
	if (insn->segment_override || insn->address_bytes != 8)
		return false;
	if (x86_insn_has_memory(insn) && (insn->base >= 16 || insn->disp > 2000 ||
					  insn->disp < -2000 || insn->index == insn->base))
		return false;
	switch (insn->encoding.class) {
	case X86_CLASS_DATA:
	case X86_CLASS_LEA:
	case X86_CLASS_BIT_STRING:
		return insn->encoding.operation != X86_OPERATION_ENVIRONMENT &&
		       insn->mem_bytes <= 64;
	case X86_CLASS_SCATTERED: return insn->kind;
	case X86_CLASS_POP:
		if (insn->rm == 4) /* RSP */
			return false;
		/* fall through */
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE: return !insn->prefix66;
	default: return false;
	}
}

static unsigned set_register(uint8_t *to, unsigned reg, uint64_t value)
{
	to[0] = (uint8_t)(0x48 | reg >> 3);
	to[1] = (uint8_t)(0xb8 | (reg & 7));
	memcpy(to + 2, &value, 8);
	return 10;
}

static void make_unit(struct unit *unit)
{
	static const uint8_t likely[] = { 0x66, 0xf2, 0xf3, 0x48, 0x0f, 0x41,
					  0x4f, 0xc4, 0xc5, 0x4c, 0x45, 0xf0 };
	uint8_t code[16];
	struct x86_insn insn;

	do {
		for (int n = 0; n < 16; n++)
			code[n] = (uint8_t)(rnd() >> 20);
		for (int n = 0; n < 3 && rnd() % 3; n++)
			code[n] = likely[rnd() % sizeof(likely)];
	} while (x86_decode(code, 15, 64, &insn) || !eligible(&insn));
	unit->length = 0;
	unit->off = false;
	/* the index register to all zeroes or all ones */
	if (insn.encoding.attributes & X86_ENC_VSIB) {
		const uint8_t compare[5] = { 0xc4, (uint8_t)(insn.index < 8 ? 0xe1 : 0x41),
					     (uint8_t)(0x7d & ~((insn.index & 15) << 3)),
					     (uint8_t)(rnd() % 2 ? 0xef : 0x76),
					     (uint8_t)(0xc0 | (insn.index & 7) << 3 |
						       (insn.index & 7)) };

		memcpy(unit->bytes, compare, 5);
		unit->length = 5;
		unit->length +=
			(uint8_t)set_register(unit->bytes + 5, insn.base,
					      BASE + DATA + GUEST_PAGE_BYTES - (uint64_t)insn.disp);
	} else if (insn.encoding.class == X86_CLASS_SCATTERED) { /* at RDI */
		unit->length += (uint8_t)set_register(
			unit->bytes, 7, BASE + DATA + GUEST_PAGE_BYTES + rnd() % 64 - 32);
	} else if (insn.has_modrm && insn.mod != 3) {
		uint64_t at = BASE + DATA + GUEST_PAGE_BYTES + rnd() % 512 - 256;

		if (insn.index < 16)
			unit->length +=
				(uint8_t)set_register(unit->bytes + unit->length, insn.index,
						      rnd() % 64 & (rnd() % 2 ? ~15ull : ~0ull));
		if (rnd() % 8) {
			at = (at & ~63ull) - (uint64_t)insn.disp;
			at += rnd() % 8 ? 0 : 32;
		}
		unit->length += (uint8_t)set_register(unit->bytes + unit->length, insn.base, at);
		if (insn.encoding.class == X86_CLASS_BIT_STRING && insn.reg != insn.base &&
		    insn.reg != insn.index)
			unit->length += (uint8_t)set_register(unit->bytes + unit->length, insn.reg,
							      rnd() % 4000);
	} else if (x86_insn_is(&insn, X86_ENC_STACK)) {
		unit->length += (uint8_t)set_register(
			unit->bytes, 4, BASE + DATA + GUEST_PAGE_BYTES + rnd() % 64 * 8);
	}
	memcpy(unit->bytes + unit->length, code, insn.length);
	unit->length = (uint8_t)(unit->length + insn.length);
}

static void random_vector(void)
{
	static const double numbers[] = { 0, 1, -1, 0.5, 3.14159, 1e300, -1e-300, 65536, -7, 1e10 };
	uint64_t *words = (uint64_t *)(void *)in_vector;

	memset(in_vector, 0, sizeof(in_vector));
	words[0] = 0x37f;
	*(uint32_t *)(void *)(in_vector + 24) = 0x1f80;
	*(uint32_t *)(void *)(in_vector + 28) = 0xffff;
	if (rnd() % 2) { /* some x87 registers in use */
		in_vector[4] = (uint8_t)(0xff << rnd() % 8);
		*(uint16_t *)(void *)(in_vector + 2) = (uint16_t)(rnd() % 8 << 11);
		for (int n = 0; n < 8; n++) {
			long double value =
				(long double)numbers[rnd() % 10] * (long double)(rnd() % 1000);

			memcpy(in_vector + 32 + 16 * n, &value, 10);
		}
	}
	for (int n = 160 / 8; n < (160 + 256) / 8; n++)
		words[n] = rnd();
	for (int n = YMM_AT / 8; n < (YMM_AT + 256) / 8; n++)
		words[n] = rnd();
	for (int n = 0; n < 16; n++) {
		double value = numbers[rnd() % 10];

		memcpy(in_vector + 160 + 8 * (rnd() % 32), &value, 8);
	}
}

static void make_program(void)
{
	for (int n = 0; n < UNITS; n++)
		make_unit(&program[n]);
	for (int n = 0; n < 16; n++)
		in[n] = rnd() % 4 ? rnd() : rnd() % 64;
	in[4] = BASE + DATA + GUEST_PAGE_BYTES + (rnd() % 64) * 8;
	in_flags = rnd() & FLAGS_ARITHMETIC;
	data_seed = rnd();
	random_vector();
}

static size_t place_program(uint8_t end)
{
	size_t at = CODE;

	for (int n = 0; n < UNITS; n++)
		if (!program[n].off) {
			memcpy(ram + at, program[n].bytes, program[n].length);
			at += program[n].length;
		}
	memset(ram + at, end, 16);
	for (unsigned n = 0; n < DATA_BYTES / 8; n++)
		((uint64_t *)(void *)(ram + DATA))[n] = data_seed * (n + 1) ^ data_seed << 32;
	return at;
}

/* ---- both ---- */

static void run_native(void)
{
	place_program(0xcc);
	if (!sigsetjmp(back, 1))
		raise(SIGUSR1);
	memcpy(native.data, ram + DATA, DATA_BYTES);
}

static void run_engine(void)
{
	const unsigned groups = ENGINE_GENERAL | ENGINE_VECTOR;
	const uint64_t components = 7;
	size_t end = place_program(0xf4);

	engine_memory_written(engine, CODE & ~(uint64_t)(GUEST_PAGE_BYTES - 1),
			      end + 16 - (CODE & ~(uint64_t)(GUEST_PAGE_BYTES - 1)));
	memcpy(state.x86.gpr, in, sizeof(in));
	state.x86.rip = BASE + CODE;
	state.x86.rflags = 2 | in_flags;
	memcpy(state.vector, in_vector, FX_BYTES);
	memset(state.vector + FX_BYTES, 0, 64);
	memcpy(state.vector + FX_BYTES, &components, sizeof(components));
	memcpy(state.vector + YMM_AT, in_vector + YMM_AT, 256);
	if (engine_set(cpu, groups, &state))
		exit(70);
	engines.fault = engine_run(cpu) == ENGINE_EXIT_SHUTDOWN;
	engine_get(cpu, groups, &state);
	memcpy(engines.gpr, state.x86.gpr, sizeof(in));
	engines.rip = state.x86.rip;
	engines.flags = state.x86.rflags & FLAGS_ARITHMETIC;
	memcpy(engines.vector, state.vector, ENGINE_VECTOR_BYTES);
	memcpy(engines.data, ram + DATA, DATA_BYTES);
}

/*
 * Registers and words of the vector state, without pointers, tags of empty registers, and what the
 * kernel keeps there.
 */
static bool same_vector(void)
{
	return !memcmp(native.vector, engines.vector, 5) &&
	       !memcmp(native.vector + 24, engines.vector + 24, 4) &&
	       !memcmp(native.vector + 32, engines.vector + 32, 384) &&
	       !memcmp(native.vector + YMM_AT, engines.vector + YMM_AT, 256);
}

static const char *difference(void)
{
	static char text[100];

	run_native();
	if ((uint64_t)((int64_t)(native.gpr[4] << 16) >> 16) != native.gpr[4])
		return NULL;
	run_engine();
	if (native.fault != engines.fault)
		return native.fault ? "no fault" : "fault";
	if (native.fault && native.rip != engines.rip)
		return snprintf(text, sizeof(text), "rip of the fault: +%lx, host +%lx",
				engines.rip - BASE - CODE, native.rip - BASE - CODE),
		       text;
	for (int n = 0; n < 16; n++)
		if (native.gpr[n] != engines.gpr[n])
			return snprintf(text, sizeof(text), "register %d (%lx, host %lx)", n,
					engines.gpr[n], native.gpr[n]),
			       text;
	if (!native.fault && native.flags != engines.flags)
		return snprintf(text, sizeof(text), "flags (%lx, host %lx)", engines.flags,
				native.flags),
		       text;
	if (!same_vector())
		return "vector state";
	return memcmp(native.data, engines.data, DATA_BYTES) ? "memory" : NULL;
}

/* Leaves out every instruction without which they still differ, and prints the rest. */
static void report(const char *first)
{
	const char *what;
	char kept[100];

	snprintf(kept, sizeof(kept), "%s, but only once", first);
	for (int n = 0; n < UNITS; n++) {
		program[n].off = true;
		if (!difference())
			program[n].off = false;
	}
	what = difference();
	printf("differs in %s:", what ? what : kept);
	for (int n = 0; n < UNITS; n++) {
		if (program[n].off)
			continue;
		for (int k = 0; k < program[n].length; k++)
			printf(" %02x", program[n].bytes[k]);
		printf(n + 1 < UNITS ? " |" : "");
	}
	printf("\n");
}

static void make_guest(void)
{
	uint64_t *table = (uint64_t *)(void *)(ram + TABLES);
	struct engine *created;
	struct x86_state *x86 = &state.x86;

	if (mmap(ram, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ram)
		exit(70);
	table[0] = (TABLES + GUEST_PAGE_BYTES) | 3;
	table[512] = (TABLES + 0x2000) | 3;
	for (unsigned n = 0; n < RAM_BYTES >> 21; n++)
		table[1024 + (BASE >> 21) + n] = (TABLES + 0x3000 + GUEST_PAGE_BYTES * n) | 3;
	for (unsigned n = 0; n < RAM_BYTES >> 12; n++)
		table[1536 + n] = (uint64_t)n << 12 | 3;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	created = engine_create(&memory, &engine_options);
	engine = created;
	cpu = engine_cpu_create(created, &ops, NULL);
	begin_long_mode(x86, TABLES);
	engine_set(cpu, ENGINE_SEGMENTS | ENGINE_CONTROL, &state);
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
	unsigned long done = 0;
	unsigned long bad = 0;
	unsigned long faults = 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	seed_state = seed * 0x9e3779b97f4a7c15ull + 1;
	make_guest();
	if (engine_prepare_thread(cpu) || sigaltstack(NULL, &engine_stack))
		return 70;
	install();
	while (done < count && bad < 40) {
		const char *what;

		make_program();
		what = difference();
		if (what) {
			report(what);
			bad++;
		}
		faults += native.fault;
		for (int n = 0; n < UNITS; n++)
			done += native.fault ? n < UNITS / 2 : 1;
	}
	printf("differential_test: seed %lu, about %lu instructions, %lu programs faulted, %lu "
	       "differences\n",
	       seed, done, faults, bad);
	return bad != 0;
}
