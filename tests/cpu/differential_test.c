/*
 * Random instructions with random state, on the host's processor and in the engine, in one process: registers, flags and
 * memory must agree, and so must whether it faulted. Guest memory is mapped where the guest sees it, so both run on the same
 * bytes. usage: differential_test [COUNT [SEED]]
 *
 * Instructions that change control flow or need privilege are left to other tests; x87 and SIMD state is not compared yet, and
 * pairs that leave a non-canonical stack pointer are skipped (docs/engine.md, known deviations).
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "../../src/engine/engine.h"
#include "../../src/x86/state.h"

enum { RAM_BYTES = 4 << 20, CODE = 0x100000, DATA = 0x200000, DATA_BYTES = 8192, TABLES = 0x10000 };
#define BASE 0x20000000ul

static uint8_t *const ram = (uint8_t *)BASE;
static struct engine_cpu *cpu;
static uint64_t in[16], out[17];
static int native_fault;
static sigjmp_buf back;

static uint64_t seed_state;
static uint64_t rnd(void)
{
	seed_state ^= seed_state << 13;
	seed_state ^= seed_state >> 7;
	seed_state ^= seed_state << 17;
	return seed_state;
}

static const int greg[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
			      REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
static uint64_t in_flags;

static void on_start(int number, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)number, (void)info;
	for (int n = 0; n < 16; n++)
		u->uc_mcontext.gregs[greg[n]] = (greg_t)in[n];
	u->uc_mcontext.gregs[REG_EFL] = (greg_t)(0x202 | in_flags);
	u->uc_mcontext.gregs[REG_RIP] = (greg_t)(BASE + CODE);
}

static void on_end(int number, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)info;
	for (int n = 0; n < 16; n++)
		out[n] = (uint64_t)u->uc_mcontext.gregs[greg[n]];
	out[16] = (uint64_t)u->uc_mcontext.gregs[REG_EFL] & FLAGS_ARITHMETIC;
	native_fault = number == SIGTRAP ? 0 : number;
	siglongjmp(back, 1);
}

static void native(void)
{
	static const int ends[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction start = { .sa_sigaction = on_start, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction end = { .sa_sigaction = on_end, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	struct sigaction engines[5];

	sigaction(SIGUSR1, &start, NULL);
	for (int n = 0; n < 5; n++)
		sigaction(ends[n], &end, &engines[n]);
	if (!sigsetjmp(back, 1))
		raise(SIGUSR1);
	for (int n = 0; n < 5; n++)
		sigaction(ends[n], &engines[n], NULL);
}

static bool vector(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->kind || i->map == 2)
		return op < 0xf0;
	if (i->map == 3)
		return !(i->kind && op == 0xf0);
	return i->map == 1 && ((op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) || (op >= 0x50 && op <= 0x7f) || op == 0xc2 ||
			       (op >= 0xc4 && op <= 0xc6) || op >= 0xd0);
}

/* Only what is translated as data: the rest has its own tests. */
static bool eligible(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->segment_override || i->address_bytes != 8 || i->encoding.attributes & X86_ENC_VSIB || vector(i))
		return false;
	if (i->has_modrm && i->mod != 3) {
		if (i->base >= 16 || i->disp > 2000 || i->disp < -2000 || i->index == i->base)
			return false;
		if (i->mem_bytes > 64)
			return false;
	}
	if (i->kind)
		return !(i->map == 1 && op == 0xf7) && !(i->map == 1 && op == 0xae);
	if (i->map == 0) {
		if ((op >= 0x6c && op <= 0x7f) || (op >= 0xa0 && op <= 0xa7 ) || (op >= 0xaa && op <= 0xaf) || op == 0x8c || op == 0x8e || op == 0xc8 ||
		    op == 0xd7 || (op >= 0xc2 && op <= 0xc3) || (op >= 0xca && op <= 0xcf) || (op >= 0xe0 && op <= 0xef) || op == 0xf1 ||
		    op == 0xf4 || (op >= 0xfa && op <= 0xfd) || (op == 0xff && i->reg >= 2) || op == 0x9c || op == 0x9d || op == 0x9b ||
		    (op >= 0xd8 && op <= 0xdf) || op == 0x8f || (op >= 0x50 && op < 0x60 && i->prefix66) || ((op & 0xfd) == 0x68 && i->prefix66) || op == 0xc9)
			return false;
		return !(op == 0x5c);
	}
	if (i->map == 1) {
		if (op <= 0x09 || op == 0x0b || (op >= 0x20 && op <= 0x23) || (op >= 0x30 && op <= 0x37) || (op >= 0x80 && op <= 0x8f) || op == 0x0d ||
		    (op >= 0xa0 && op <= 0xa2) || (op >= 0xa8 && op <= 0xaa) || op == 0xae || op == 0xb2 || op == 0xb4 || op == 0xb5 || op == 0xb9 ||
		    op == 0xc7 || op == 0xff || op == 0xf7 || (op >= 0x18 && op <= 0x1f))
			return false;
	}
	return !(i->map == 2 && (op == 0x82 || op == 0x80 || op == 0x81));
}

static void random_state(const struct x86_insn *i)
{
	for (int n = 0; n < 16; n++)
		in[n] = rnd() % 4 ? rnd() : rnd() % 64;
	in[4] = BASE + DATA + 4096 + (rnd() % 64) * 8;
	if (i->has_modrm && i->mod != 3) {
		if (i->index < 16)
			in[i->index] = rnd() % 64;
		in[i->base] = BASE + DATA + 4096 + rnd() % 512 - 256;
		if (rnd() % 4 == 0)
			in[i->base] &= ~31ull;
		if (!i->kind && i->map == 1 && (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb) && i->reg != i->base && i->reg != i->index)
			in[i->reg] = rnd() % 4000;
	}
	in_flags = rnd() & FLAGS_ARITHMETIC;
}

static void fill_data(uint64_t seed)
{
	for (unsigned n = 0; n < DATA_BYTES / 8; n++)
		((uint64_t *)(void *)(ram + DATA))[n] = seed * (n + 1) ^ seed << 32;
}

static void show(const char *what, const uint8_t *code, size_t length)
{
	printf("differs in %s:", what);
	for (size_t n = 0; n < length; n++)
		printf(" %02x", code[n]);
	printf("\n");
}

static uint64_t port_read(void *c, uint16_t p, unsigned b) { (void)c, (void)p, (void)b; return 0; }
static void port_write(void *c, uint16_t p, unsigned b, uint64_t v) { (void)c, (void)p, (void)b, (void)v; }
static void mmio_read(void *c, uint64_t g, void *t, size_t b) { (void)c, (void)g; memset(t, 0, b); }
static void mmio_write(void *c, uint64_t g, const void *t, size_t b) { (void)c, (void)g, (void)t, (void)b; }
static int msr_read(void *c, uint32_t m, uint64_t *v) { (void)c, (void)m; *v = 0; return 0; }
static int msr_write(void *c, uint32_t m, uint64_t v) { (void)c, (void)m, (void)v; return 0; }
static void cpuid(void *c, uint32_t l, uint32_t s, uint32_t r[4]) { (void)c, (void)l, (void)s; memset(r, 0, 16); }
static int interrupt(void *c) { (void)c; return -1; }
static void set_cr8(void *c, uint8_t v) { (void)c, (void)v; }
static bool hypercall(void *c) { (void)c; return false; }
static const struct engine_ops ops = { port_read, port_write, mmio_read, mmio_write, msr_read, msr_write, cpuid, interrupt, set_cr8, hypercall };

static struct engine *make_guest(void)
{
	uint64_t *t = (uint64_t *)(void *)(ram + TABLES);
	struct engine *e;
	struct x86_state *s;

	if (mmap(ram, RAM_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ram)
		exit(70);
	t[0] = (TABLES + 0x1000) | 3;
	t[512] = (TABLES + 0x2000) | 3;
	for (unsigned n = 0; n < RAM_BYTES >> 21; n++)
		t[1024 + (BASE >> 21) + n] = (TABLES + 0x3000 + 0x1000 * n) | 3;
	for (unsigned n = 0; n < RAM_BYTES >> 12; n++)
		t[1536 + n] = (uint64_t)n << 12 | 3;
	e = engine_create(ram, RAM_BYTES, RAM_BYTES);
	cpu = engine_cpu_create(e, &ops, NULL);
	s = engine_cpu_state(cpu);
	s->cr0 = CR0_PE | CR0_PG | 0x30;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE | 0x600 | CR4_OSXSAVE;
	s->xcr0 = 7;
	s->efer = EFER_LME | EFER_LMA;
	s->code_bits = 64;
	s->segment[X86_CS].attributes = 0xa09b;
	return e;
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000, done = 0, bad = 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	stack_t stack = { .ss_size = 1 << 16, .ss_sp = malloc(1 << 16) };
	static uint8_t after_native[DATA_BYTES];
	struct engine *e = make_guest();

	seed_state = seed * 0x9e3779b97f4a7c15ull + 1;
	sigaltstack(&stack, NULL);
	if (engine_prepare_thread(cpu))
		return 70;
	while (done < count) {
		static const uint8_t likely[] = { 0x66, 0xf2, 0xf3, 0x48, 0x0f, 0x41, 0x4f, 0xc4, 0xc5, 0x4c, 0x45, 0xf0 };
		uint8_t code[16];
		struct x86_insn i;
		uint64_t data_seed = rnd();
		enum engine_exit end;
		bool differs = false;
		struct x86_state *s = engine_cpu_state(cpu);

		for (int n = 0; n < 16; n++)
			code[n] = (uint8_t)(rnd() >> 20);
		for (int n = 0; n < 3 && rnd() % 3; n++)
			code[n] = likely[rnd() % sizeof(likely)];
		if (x86_decode(code, 15, 64, &i) || !eligible(&i))
			continue;
		done++;
		random_state(&i);
		memset(ram + CODE, 0xcc, 32);
		memcpy(ram + CODE, code, i.length);
		fill_data(data_seed);
		native();
		if ((uint64_t)((int64_t)(out[4] << 16) >> 16) != out[4])
			continue;
		memcpy(after_native, ram + DATA, DATA_BYTES);
		fill_data(data_seed);
		ram[CODE + i.length] = 0xf4;
		engine_memory_written(e, CODE, 32);
		memcpy(s->gpr, in, sizeof(in));
		s->rip = BASE + CODE;
		s->rflags = 2 | in_flags;
		end = engine_run(cpu);
		if ((end == ENGINE_EXIT_SHUTDOWN) != (native_fault != 0)) {
			show(native_fault ? "no fault" : "fault", code, i.length);
			differs = true;
		} else if (!native_fault) {
			for (int n = 0; n < 16; n++)
				if (s->gpr[n] != out[n]) {
					char text[80];

					snprintf(text, sizeof(text), "register %d (%lx, host %lx)", n, s->gpr[n], out[n]);
					show(text, code, i.length);
					differs = true;
				}
			if ((s->rflags & FLAGS_ARITHMETIC) != out[16]) {
				char text[80];

				snprintf(text, sizeof(text), "flags (%lx, host %lx)", s->rflags & FLAGS_ARITHMETIC, out[16]);
				show(text, code, i.length);
				differs = true;
			}
			if (memcmp(after_native, ram + DATA, DATA_BYTES)) {
				show("memory", code, i.length);
				differs = true;
			}
		}
		bad += differs;
		if (bad > 40)
			break;
	}
	printf("differential_test: seed %lu, %lu pairs, %lu differences\n", seed, done, bad);
	return bad != 0;
}
