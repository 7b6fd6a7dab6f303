/*
 * Random loops, natively and in the engine: loop_test CASES SEED [without]. What strips
 * (translate_strip.c) are about: streams through base and index with strides of both signs, of
 * registers and of 32 bits, before and behind the change of their registers, unaligned across
 * pages, jumps out of the middle. Registers and memory must be equal afterwards. Then what a strip
 * must not go on over: an index that passes 4 GiB, another page by INVLPG.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/memory.h"
#include "no_devices.h"
#include "x86/state.h"

enum {
	RAM_BYTES = 4 << 20,
	PAGE = 1 << 12,
	CODE = 0x100000,
	DATA = 0x200000,
	DATA_PAGES = 16,
	DATA_BYTES = DATA_PAGES * PAGE,
	GUEST_DATA = 0x340000, /* where the guest's page tables have it, page by page elsewhere */
	STACK = 0x300000,
	TABLES = 0x10000,
	PAGE_TABLES = 0x20000,
	LARGE_SHIFT = 21
};
#define BASE 0x20000000ul

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R12 = 12, REGISTERS = 16 };

static uint8_t *const ram = (uint8_t *)BASE;
static struct guest_memory memory;
static uint64_t seed;

static uint32_t next_random(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % below);
}

static void put64(uint64_t gpa, uint64_t value) { memcpy(ram + gpa, &value, 8); }

/* No two that follow each other do so in the host: what reaches over an end is seen. */
static uint64_t guest_page(unsigned n) { return GUEST_DATA + n * 5 % DATA_PAGES * PAGE; }

/* Small pages, so that each page's entry is one of its own. */
static void make_tables(void)
{
	enum { PRESENT_WRITE = 3, ENTRIES = 512 };

	put64(TABLES, (TABLES + PAGE) | PRESENT_WRITE);
	put64(TABLES + PAGE, (TABLES + 2 * PAGE) | PRESENT_WRITE);
	/* the same 4 GiB below, which is at the upper end of all addresses */
	put64(TABLES + 8 * (ENTRIES - 1), (TABLES + PAGE) | PRESENT_WRITE);
	put64(TABLES + PAGE + 8 * (ENTRIES - 4), (TABLES + 2 * PAGE) | PRESENT_WRITE);
	for (unsigned n = 0; n < RAM_BYTES >> LARGE_SHIFT; n++)
		put64(TABLES + 2 * PAGE + 8 * ((BASE >> LARGE_SHIFT) + n),
		      (PAGE_TABLES + n * PAGE) | PRESENT_WRITE);
	for (unsigned n = 0; n < RAM_BYTES / PAGE; n++)
		put64(PAGE_TABLES + 8 * n, (uint64_t)n * PAGE | PRESENT_WRITE);
	for (unsigned n = 0; n < DATA_PAGES; n++)
		put64(PAGE_TABLES + 8 * (DATA / PAGE + n), guest_page(n) | PRESENT_WRITE);
}

static struct engine *make_engine(bool is_without, struct engine_cpu **ret_cpu)
{
	struct engine_options options = engine_options;
	struct engine *engine;
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *x86 = &state.x86;

	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	options.without = is_without ? ENGINE_WITHOUT_STRIPS | ENGINE_WITHOUT_INDEXES : 0;
	engine = engine_create(&memory, &options);
	*ret_cpu = engine_cpu_create(engine, &ops, NULL);
	begin_flat_long_mode(x86, TABLES);
	engine_set(*ret_cpu, ENGINE_SEGMENTS | ENGINE_CONTROL, &state);
	return engine;
}

/* ---- making a loop */

static uint8_t code[512];
static unsigned length, exits[16], exit_count;
static bool rdx_is_far; /* goes by R12, and may be multiplied */

static void put(unsigned count, const uint8_t *bytes)
{
	memcpy(code + length, bytes, count);
	length += count;
}

#define PUT(...)                                                                                   \
	put(sizeof((const uint8_t[]){ __VA_ARGS__ }), (const uint8_t[]){ __VA_ARGS__ })

/*
 * ModRM and what follows: [rsi + d8], [rdi + d32], [rdi + rdx * scale + d8], [rdx + rbx + d8],
 * [rdi + rbp + d8].
 */
static void put_operand(unsigned reg)
{
	uint8_t disp = (uint8_t)(next_random(160) - 80);
	uint8_t scale = (uint8_t)next_random(3);

	reg = reg << 3 & 0x38;
	switch (next_random(6)) {
	case 0: PUT((uint8_t)(0x40 | reg | RSI), disp); break;
	case 5: PUT((uint8_t)(0x44 | reg), (uint8_t)(RBP << 3 | RDI), disp); break;
	case 1: PUT((uint8_t)(0x80 | reg | RDI), disp, (uint8_t)next_random(2), 0, 0); break;
	case 2:
	case 3:
		PUT((uint8_t)(0x44 | reg), (uint8_t)(scale << 6 | RDX << 3 | RDI), disp);
		break;
	default: PUT((uint8_t)(0x44 | reg), (uint8_t)(RBX << 3 | RDX), disp); break;
	}
}

static unsigned data_register(void) { return next_random(2) ? RAX : RCX; }

/* A jump out of the middle, hardly ever taken. */
static void put_exit(void)
{
	PUT(0x3d, (uint8_t)next_random(256), (uint8_t)next_random(256), 0, 0); /* cmp eax, imm */
	PUT(0x0f, (uint8_t)(next_random(2) ? 0x84 : 0x87), 0, 0, 0, 0);
	if (code[length - 5] == 0x87) /* ja: rather often */
		code[length - 5] = 0x84;
	exits[exit_count++] = length;
}

/* movzx eax, al or cl, and perhaps others; then an operand [rdi + rax * 2 or 4 + d8]. */
static void put_table(void)
{
	static const uint8_t opcodes[] = { 0x03, 0x8b, 0x2b, 0x33, 0x3b, 0x13, 0x85 };

	PUT(0x0f, 0xb6, (uint8_t)(0xc0 | next_random(2)));
	if (next_random(2))
		PUT(0x01, 0xc1); /* add ecx, eax */
	if (next_random(2))
		PUT(0x44, 0x8d, 0x41, 3); /* lea r8d, [rcx + 3] */
	if (next_random(3) == 0)
		PUT(0x48);
	PUT(opcodes[next_random(sizeof(opcodes))], (uint8_t)(0x44 | data_register() << 3),
	    (uint8_t)((1 + next_random(2)) << 6 | RAX << 3 | RDI), (uint8_t)next_random(256));
}

static void put_insn(void)
{
	static const uint8_t opcodes[] = { 0x01, 0x03, 0x8b, 0x89, 0x2b, 0x31, 0x33, 0x3b, 0x85 };

	switch (next_random(13)) {
	case 12: put_table(); break;
	case 0:
	case 1:
	case 2:
		PUT(opcodes[next_random(sizeof(opcodes))]);
		put_operand(data_register());
		break;
	case 3: /* 64 bits */
		PUT(0x48, opcodes[next_random(sizeof(opcodes))]);
		put_operand(data_register());
		break;
	case 4: /* 16 bits */
		PUT(0x66, opcodes[next_random(sizeof(opcodes))]);
		put_operand(data_register());
		break;
	case 5: /* movzx eax, byte */
		PUT(0x0f, 0xb6);
		put_operand(data_register());
		break;
	case 6: /* movups, paddd, movups */
		PUT(0x0f, 0x10);
		put_operand(0);
		PUT(0x66, 0x0f, 0xfe, 0xc1);
		break;
	case 7:
		PUT(0x0f, 0x11);
		put_operand(0);
		break;
	case 8: PUT(0x44, 0x8d, 0x04, 0x48); break; /* lea r8d, [rax + rcx * 2] */
	case 9: PUT(0x01, 0xc1); break;             /* add ecx, eax */
	case 10: /* adc byte, al */
		PUT(0x10);
		put_operand(RAX);
		break;
	default:
		if (exit_count < 3)
			put_exit();
	}
}

/* RSI and RDX go on, by ADD, SUB, LEA or INC, of 64 or 32 bits, or by R12; or one stays. */
enum { STEPS = 10, ADD_SHORT = 4, ADD_REGISTER = 5, ADD_SHORT_REGISTER = 6 };

static void put_step(unsigned reg, unsigned how, uint8_t by)
{
	switch (how) {
	case 0: PUT(0x48, 0x83, (uint8_t)(0xc0 | reg), by); break;
	case 1: PUT(0x48, 0x83, (uint8_t)(0xe8 | reg), by); break;
	case 2: PUT(0x48, 0x8d, (uint8_t)(0x40 | reg << 3 | reg), by); break;
	case 3: PUT(0x48, 0xff, (uint8_t)(0xc0 | reg)); break;
	case ADD_SHORT: PUT(0x83, (uint8_t)(0xc0 | reg), by & 15); break;
	case ADD_REGISTER: PUT(0x4c, 0x01, (uint8_t)(0xe0 | reg)); break;
	case ADD_SHORT_REGISTER: PUT(0x44, 0x01, (uint8_t)(0xe0 | reg)); break;
	default: break;
	}
}

/* RBP is RDX, or of one that is not below zero its lower half, from here on. */
static void put_copy(unsigned rdx_how)
{
	if (rdx_how < ADD_SHORT || next_random(2))
		PUT(0x48);
	if (next_random(2))
		PUT(0x89, 0xd5);
	else
		PUT(0x8b, 0xea);
}

static uint8_t random_step(void)
{
	static const uint8_t steps[] = { 1, 2, 4, 8, 16, 24, 7, 0xfc, 0xf0, 0xff };

	return steps[next_random(sizeof(steps))];
}

static void make_loop(void)
{
	unsigned insns = 1 + next_random(12);
	unsigned rsi_at = next_random(insns);
	unsigned rdx_at = next_random(insns);
	unsigned copy_at = next_random(2 * insns);
	unsigned rsi_how = next_random(STEPS);
	unsigned rdx_how = next_random(STEPS);
	uint32_t back;

	length = exit_count = 0;
	rdx_is_far = rdx_how == ADD_REGISTER || rdx_how == ADD_SHORT_REGISTER;
	if (next_random(2)) {
		PUT(0x8b);
		put_operand(RAX);
	}
	PUT(0x85, 0xc9); /* test ecx, ecx: no flag is looked at before */
	if (next_random(4) == 0)
		put_copy(rdx_how);
	for (unsigned n = 0; n < insns; n++) {
		put_insn();
		if (n == copy_at)
			put_copy(rdx_how);
		if (n == rsi_at)
			put_step(RSI, rsi_how, random_step());
		if (n == rdx_at)
			put_step(RDX, rdx_how, random_step());
	}
	PUT(0x41, 0xff, 0xc9); /* dec r9d */
	back = (uint32_t)-(int32_t)(length + 6);
	PUT(0x0f, 0x85);
	memcpy(code + length, &back, sizeof(back));
	length += sizeof(back);
	for (unsigned n = 0; n < exit_count; n++) {
		uint32_t on = length - exits[n];

		memcpy(code + exits[n] - 4, &on, sizeof(on));
	}
}

/* ---- running it */

struct outcome { uint64_t gpr[REGISTERS]; uint8_t data[DATA_BYTES]; };

static uint64_t data_page(unsigned n, bool guest)
{
	return guest ? guest_page(n) : DATA + n * PAGE;
}

static void fill_data(uint64_t with, bool guest)
{
	for (unsigned n = 0; n < DATA_BYTES; n += 8) {
		with += 0x9e3779b97f4a7c15ull;
		put64(data_page(n / PAGE, guest) + n % PAGE, with ^ with >> 29);
	}
}

static void take_data(uint8_t *to, bool guest)
{
	for (unsigned n = 0; n < DATA_PAGES; n++)
		memcpy(to + n * PAGE, ram + data_page(n, guest), PAGE);
}

static void natively(const uint64_t *gpr, struct outcome *ret)
{
	static uint64_t io[REGISTERS];

	memcpy(io, gpr, sizeof(io));
	memcpy(ram + CODE, code, length);
	ram[CODE + length] = 0xc3;
	__asm__ volatile("push %%rbp; push %%rbx; mov %1, %%r14; mov %0, %%r13;"
			 "mov 0(%%r14), %%rax;"
			 "mov 8(%%r14), %%rcx; mov 16(%%r14), %%rdx; mov 24(%%r14), %%rbx;"
			 "mov 40(%%r14), %%rbp; mov 48(%%r14), %%rsi; mov 56(%%r14), %%rdi;"
			 "mov 64(%%r14), %%r8; mov 72(%%r14), %%r9; mov 96(%%r14), %%r12;"
			 "pxor %%xmm0, %%xmm0;"
			 "pcmpeqd %%xmm1, %%xmm1; call *%%r13; mov %%rax, 0(%%r14);"
			 "mov %%rcx, 8(%%r14); mov %%rdx, 16(%%r14); mov %%rbx, 24(%%r14);"
			 "mov %%rbp, 40(%%r14); mov %%rsi, 48(%%r14); mov %%rdi, 56(%%r14);"
			 "mov %%r8, 64(%%r14); mov %%r9, 72(%%r14); pop %%rbx; pop %%rbp"
			 :
			 : "r"((void *)(BASE + CODE)), "r"(io)
			 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
			   "r13", "r14", "xmm0", "xmm1", "memory", "cc");
	memcpy(ret->gpr, io, sizeof(io));
	take_data(ret->data, false);
}

static bool in_engine(struct engine *engine, struct engine_cpu *cpu, const uint64_t *gpr,
		      struct outcome *ret)
{
	/* pxor xmm0, xmm0; pcmpeqd xmm1, xmm1; jmp over what is between */
	static const uint8_t prologue[] = { 0x66, 0x0f, 0xef, 0xc0, 0x66, 0x0f, 0x76, 0xc9 };
	struct engine_state state;
	struct x86_state *x86 = &state.x86;
	uint64_t at = CODE - sizeof(prologue);
	bool halted;

	memcpy(ram + at, prologue, sizeof(prologue));
	memcpy(ram + CODE, code, length);
	ram[CODE + length] = 0xf4;
	engine_memory_written(engine, at, sizeof(prologue));
	engine_memory_written(engine, CODE, PAGE);
	engine_get(cpu, ENGINE_GENERAL, &state);
	memcpy(x86->gpr, gpr, sizeof(x86->gpr));
	x86->gpr[RSP] = BASE + STACK;
	x86->rip = BASE + at;
	x86->rflags = 2;
	engine_set(cpu, ENGINE_GENERAL, &state);
	halted = engine_run(cpu) == ENGINE_EXIT_HALT;
	engine_get(cpu, ENGINE_GENERAL, &state);
	memcpy(ret->gpr, x86->gpr, sizeof(ret->gpr));
	take_data(ret->data, true);
	return halted;
}

static void random_registers(uint64_t *gpr)
{
	memset(gpr, 0, REGISTERS * sizeof(*gpr));
	gpr[RAX] = next_random(1000);
	gpr[RCX] = next_random(1000);
	gpr[RDX] = next_random(64);
	/* in the middle, where what goes on by at most 24 bytes each time stays inside */
	gpr[RBX] = BASE + DATA + 7 * PAGE + next_random(PAGE);
	gpr[RSI] = BASE + DATA + 7 * PAGE + next_random(PAGE);
	gpr[RDI] = BASE + DATA + 7 * PAGE + next_random(PAGE);
	gpr[RBP] = next_random(64);
	gpr[R9] = 1 + next_random(280);
	gpr[R12] = next_random(25);
	if (!rdx_is_far && next_random(2))
		gpr[R12] = -gpr[R12];
	if (next_random(4))
		return;
	/* far, and few: what no strip takes as well */
	gpr[R9] = 1 + next_random(8);
	gpr[R12] = next_random(rdx_is_far ? 700 : 3000);
}

/*
 * mov edx, eax; mov [rcx + rdx], bl; add eax, edi; dec r9d; jnz: EAX passes its end in the middle
 * of a page, and what follows is 4 GiB below, where the guest has the same page.
 */
static bool goes_on_behind_wrap(struct engine *engine, struct engine_cpu *cpu)
{
	static const uint8_t wraps[] = { 0x89, 0xc2, 0x88, 0x1c, 0x11, 0x01, 0xf8,
					 0x41, 0xff, 0xc9, 0x75, 0xf4 };
	enum { BEFORE = 0x400, AT = 0x800, BY = 4, MARK = 0x5a };
	uint64_t gpr[REGISTERS] = { 0 };
	static struct outcome got;
	bool is_right;

	memcpy(code, wraps, sizeof(wraps));
	length = sizeof(wraps);
	memset(ram + guest_page(7), 0, PAGE);
	gpr[RAX] = (uint32_t)-BEFORE;
	gpr[RCX] = BASE + DATA + 7 * PAGE + AT - ((uint64_t)UINT32_MAX + 1);
	gpr[RBX] = MARK;
	gpr[RDI] = BY;
	gpr[R9] = 2 * BEFORE / BY;
	is_right = in_engine(engine, cpu, gpr, &got);
	for (unsigned n = 0; n < PAGE; n++)
		is_right &= got.data[7 * PAGE + n] ==
			    (n >= AT - BEFORE && n < AT + BEFORE && n % BY == 0 ? MARK : 0);
	if (!is_right)
		printf("FAIL an index that passes its end goes on behind it\n");
	return is_right;
}

/*
 * A loop over a page, which the guest then maps elsewhere, INVLPG, and the loop again: what the
 * first one had looked up is nothing to the second. In the end the page is where it was.
 */
static bool forgets_at_invlpg(struct engine *engine, struct engine_cpu *cpu)
{
	static const uint8_t twice[] = {
		0x85, 0xc9,             /* test ecx, ecx */
		0x88, 0x06,             /* mov [rsi], al */
		0x48, 0xff, 0xc6,       /* inc rsi */
		0x41, 0xff, 0xc9,       /* dec r9d */
		0x75, 0xf4,             /* jnz to the begin */
		0x48, 0x89, 0x3b,       /* mov [rbx], rdi: its entry */
		0x0f, 0x01, 0x3a,       /* invlpg [rdx] */
		0x48, 0x89, 0xd6,       /* mov rsi, rdx */
		0x41, 0xb9, 0, 8, 0, 0, /* mov r9d, 2048 */
		0xfe, 0xc0,             /* inc al */
		0x41, 0xff, 0xc8,       /* dec r8d */
		0x75, 0xde,             /* jnz to the begin */
	};
	enum { PRESENT_WRITE = 3, TIMES = 2, BYTES = 2048, MARK = 0x31 };
	uint64_t entry = PAGE_TABLES + 8 * (DATA / PAGE + 7);
	uint64_t gpr[REGISTERS] = { 0 };
	static struct outcome got;
	bool is_right;

	memcpy(code, twice, sizeof(twice));
	length = sizeof(twice);
	memset(ram + guest_page(7), 0, PAGE);
	memset(ram + guest_page(8), 0, PAGE);
	gpr[RAX] = MARK;
	gpr[RSI] = gpr[RDX] = BASE + DATA + 7 * PAGE;
	gpr[RBX] = BASE + entry;
	gpr[RDI] = guest_page(8) | PRESENT_WRITE;
	gpr[R8] = TIMES;
	gpr[R9] = BYTES;
	is_right = in_engine(engine, cpu, gpr, &got);
	for (unsigned n = 0; n < BYTES; n++)
		is_right &= got.data[7 * PAGE + n] == MARK && got.data[8 * PAGE + n] == MARK + 1;
	put64(entry, guest_page(7) | PRESENT_WRITE);
	if (!is_right)
		printf("FAIL a loop after INVLPG is over another page\n");
	return is_right;
}

static bool is_equal(const struct outcome *a, const struct outcome *b)
{
	for (unsigned n = 0; n <= R9; n++)
		if (n != RSP && a->gpr[n] != b->gpr[n])
			return false;
	return !memcmp(a->data, b->data, DATA_BYTES);
}

static void print_case(unsigned number, const struct outcome *want, const struct outcome *got)
{
	printf("FAIL case %u:", number);
	for (unsigned n = 0; n < length; n++)
		printf(" %02x", code[n]);
	printf("\n");
	for (unsigned n = 0; n <= R9; n++)
		if (n != RSP && want->gpr[n] != got->gpr[n])
			printf("  register %u: %lx, not %lx\n", n, got->gpr[n], want->gpr[n]);
	for (unsigned n = 0; n < DATA_BYTES; n++)
		if (want->data[n] != got->data[n]) {
			printf("  first byte at %x\n", n);
			break;
		}
}

int main(int argc, char **argv)
{
	static struct outcome want, got;
	unsigned cases = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	struct engine_cpu *cpu;
	struct engine *engine;
	int failures = 0;

	seed = argc > 2 ? (uint64_t)atoll(argv[2]) : 1;
	if (mmap(ram, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ram)
		return 70;
	make_tables();
	engine = make_engine(argc > 3, &cpu);
	if (engine_prepare_thread(cpu))
		return 70;
	for (unsigned n = 0; n < cases && failures < 5; n++) {
		uint64_t gpr[REGISTERS];
		uint64_t with = seed;

		make_loop();
		random_registers(gpr);
		fill_data(with, false);
		natively(gpr, &want);
		fill_data(with, true);
		if (in_engine(engine, cpu, gpr, &got) && is_equal(&want, &got))
			continue;
		print_case(n, &want, &got);
		failures++;
	}
	printf("loop_test: %u loops, %d differences\n", cases, failures);
	failures += !goes_on_behind_wrap(engine, cpu);
	failures += !forgets_at_invlpg(engine, cpu);
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
