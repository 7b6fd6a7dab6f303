/*
 * Random programs in 16-, 32- and 64-bit code at CPL 3, then also at CPL 0, jumps into random
 * bytes, and writes anywhere, again and again; traps come back. Whatever happens to the guest, the
 * machine must end in one of the ways that a machine ends. Its last line comes only if the guest
 * kept itself alive. The command line: the seed, how many programs at CPL 3, how many rounds after
 * them.
 */
#include "guest.h"

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void jump(void *to) { ((void (*)(void))to)(); }
static void write_at(void *to) { *(volatile uint64_t *)to = rnd(); }
static void set_msr(void *msr) { wrmsr((uint32_t)(uint64_t)msr, rnd()); }

extern uint64_t boot_information;

/* ---- random programs ---- */

#define PROGRAM_AT 0x40000000ull /* two pages, at the end of which nothing is mapped */
enum {
	PROGRAM_BYTES = 4096,
	PROGRAM_PAGES = 2,
	INSTRUCTIONS = 24,
	USER_ROUNDS = 1000,
	ROUNDS = 20000
};
enum {
	SELECTOR_USER_16 = 0x13b,
	SELECTOR_KERNEL_16 = 0x140,
	SELECTOR_KERNEL_32 = 0x18,
	SELECTOR_USER_32 = 0x23,
	SELECTOR_USER_64 = 0x33
};

/* A program that loops is ended by the timer. */
enum {
	MSR_APIC_BASE = 0x1b,
	X2APIC_ENABLED = 0xc00,
	MSR_EOI = 0x80b,
	MSR_SPURIOUS = 0x80f,
	MSR_TIMER = 0x832,
	MSR_TIMER_COUNT = 0x838,
	MSR_TIMER_DIVISOR = 0x83e,
	TIMER_VECTOR = 0x60,
	PROGRAM_TICKS = 200000
};

extern uint64_t gdt[];

static const uint16_t selectors[] = { SELECTOR_USER_16,   SELECTOR_USER_32,   SELECTOR_USER_64,
				      SELECTOR_KERNEL_16, SELECTOR_KERNEL_32, 8 };
static volatile uint8_t *const program = (volatile uint8_t *)PROGRAM_AT;

static bool is_sixteen(uint16_t selector)
{
	return selector == SELECTOR_USER_16 || selector == SELECTOR_KERNEL_16;
}

static unsigned put(unsigned at, uint64_t value, unsigned bytes)
{
	for (unsigned n = 0; n < bytes; n++)
		program[at++] = (uint8_t)(value >> 8 * n);
	return at;
}

/* MOV of an address in the data page to a register. */
static unsigned put_pointer(unsigned at, bool sixteen, unsigned reg)
{
	static const uint16_t ends[] = { 0xff8, 0xffc, 0xffe, PAGE_OFFSET, 0xff0, 0xfe0, 0, 0x7f0 };
	uint64_t offset = PROGRAM_BYTES + ends[rnd() % 8];

	if (sixteen)
		at = put(at, 0x66, 1);
	at = put(at, 0xb8 + reg, 1);
	return put(at, PROGRAM_AT + offset, 4);
}

/* Mostly a data instruction, with prefixes that may mean nothing to it. */
static unsigned put_instruction(unsigned at)
{
	static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0,
					    0x2e, 0x3e, 0x66, 0x67, 0x66 };
	static const uint8_t opcodes[] = { 0x01, 0x03, 0x05, 0x0b, 0x11, 0x1b, 0x21, 0x2b, 0x31,
					   0x3b, 0x3d, 0x69, 0x6b, 0x80, 0x81, 0x82, 0x83, 0x84,
					   0x85, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0xa8, 0xa9,
					   0xb8, 0xbd, 0xc0, 0xc1, 0xc6, 0xc7, 0xd1, 0xd3, 0xd9,
					   0xdd, 0xf6, 0xf7, 0xfe, 0xff, 0x40, 0x4a, 0x50, 0x5b,
					   0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xab, 0xd7, 0x98 };

	for (unsigned n = rnd() % 4; n; n--)
		at = put(at, prefixes[rnd() % sizeof(prefixes)], 1);
	switch (rnd() % 4) {
	case 0:
		at = put(at, 0x0f, 1);
		at = put(at, rnd() % 4 ? 0x10 + rnd() % 0xf0 : rnd(), 1);
		break;
	case 1:
		if (rnd() % 4 == 0) {
			at = put(at, 0xc4, 1);
			at = put(at, 0xe1 + rnd() % 3, 1);
			at = put(at, rnd(), 1);
		}
		at = put(at, rnd(), 1);
		break;
	default: at = put(at, opcodes[rnd() % sizeof(opcodes)], 1);
	}
	return put(at, rnd(), 1 + rnd() % 6);
}

static void run_program(uint16_t selector)
{
	uint64_t begin = rnd() % 64;
	uint64_t base = is_sixteen(selector) ? 0 : PROGRAM_AT;
	unsigned at = (unsigned)begin;

	for (unsigned reg = 0; reg < 8; reg++)
		if (reg != 4)
			at = put_pointer(at, is_sixteen(selector), reg);
	for (unsigned n = 0; n < INSTRUCTIONS; n++)
		at = put_instruction(at);
	put(at, 0x80cd, 2);
	wrmsr(MSR_TIMER_COUNT, PROGRAM_TICKS);
	if (try_user((void (*)(void))(base + begin), base + PROGRAM_BYTES + 0x800, selector) ==
	    TIMER_VECTOR)
		wrmsr(MSR_EOI, 0);
	wrmsr(MSR_TIMER_COUNT, 0);
}

static void map_program(void)
{
	uint8_t *pages = new_page();

	new_page();
	for (unsigned n = 0; n < PROGRAM_PAGES; n++)
		map_page(PROGRAM_AT + n * PROGRAM_BYTES, (uint64_t)pages + n * PROGRAM_BYTES,
			 PAGE_P | PAGE_W | PAGE_U);
	map_page(PROGRAM_AT + PROGRAM_PAGES * PROGRAM_BYTES, 0, 0);
	gdt[SELECTOR_USER_16 / 8] = 0x400ffb000000ffffull; /* both begin at PROGRAM_AT */
	gdt[SELECTOR_KERNEL_16 / 8] = 0x400f9b000000ffffull;
}

static void one_round(uint8_t *page)
{
	for (unsigned k = 0; k < 64; k++)
		page[rnd() % PAGE_BYTES] = (uint8_t)rnd();
	switch (rnd() % 16) {
	case 0: try_code(write_at, (void *)(rnd() >> rnd() % 64 | 0x10000000)); break;
	case 1: try_code(set_msr, (void *)(0x40000000 + rnd() % 0x200)); break;
	case 2: try_code(jump, (void *)(rnd() >> rnd() % 64)); break;
	case 3:
	case 4:
	case 5: try_code(jump, page + rnd() % PAGE_BYTES); break;
	default: run_program(selectors[rnd() % 6]);
	}
}

void test_main(void)
{
	const char *text = (const char *)(uint64_t)*(uint32_t *)(boot_information + 16);
	uint64_t seed = next_number(&text, 1);
	uint64_t user_rounds = next_number(&text, USER_ROUNDS);
	uint64_t rounds = next_number(&text, ROUNDS);
	uint8_t *page = new_page();

	new_page();
	use_trap_stack(8);
	use_trap_stack(12);
	use_trap_stack(13);
	use_trap_stack(14);
	map_program();
	write_cr4(read_cr4() | 0x40000);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | X2APIC_ENABLED);
	wrmsr(MSR_SPURIOUS, 0x1ff);
	wrmsr(MSR_TIMER_DIVISOR, 0xb); /* 1 */
	wrmsr(MSR_TIMER, TIMER_VECTOR); /* one shot */
	try_flags = 0x202;
	state = (seed ? seed : 1) * 0x9e3779b97f4a7c15ull;
	for (uint64_t n = 0; n < user_rounds; n++)
		run_program(selectors[rnd() % 3]);
	check("alive after user code", true);
	for (uint64_t n = 0; n < rounds; n++)
		one_round(page);
	check("still alive", true);
}
