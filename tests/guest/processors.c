/*
 * Several processors: INIT and SIPI, interrupts between them, locked instructions, the memory model
 * (litmus tests of x86-TSO), remote invalidation by interrupt, code changed under another
 * processor's feet.
 */
#include "guest.h"

enum {
	ROUNDS = 30000,
	FEW_ROUNDS = 500 /* at least, and where there are more than the host may have */,
	NMI_PAIRS = 300,
	SHADOWED_NMIS = 20,
	ADDS = 100000,
	CODE_ADDS = 500
};
#define LITMUS_TICKS 20000000000ull

static volatile uint32_t awake, finished, total;
static volatile uint64_t counter;
static volatile uint32_t x __attribute__((aligned(64))), y __attribute__((aligned(64)));
static volatile uint32_t seen[4] __attribute__((aligned(64)));
static volatile uint32_t arrived __attribute__((aligned(64))),
	generation __attribute__((aligned(64)));
static volatile unsigned got_ipi[17], got_nmis;
static uint64_t split_line[1024] __attribute__((aligned(PAGE_BYTES)));

/* All processors meet here. */
static void meet(void)
{
	uint32_t before = generation;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == total) {
		arrived = 0;
		__atomic_store_n(&generation, before + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (__atomic_load_n(&generation, __ATOMIC_SEQ_CST) == before)
		cpu_relax();
}

static uint32_t forbidden[4];
static volatile bool litmus_ends;

/*
 * Where the host's processors have others' work to do each meeting takes as long as one of theirs
 * lasts, milliseconds: rounds that were not done in time are left out. The first processor says so
 * before all meet.
 */
static bool is_last_round(unsigned n, uint64_t end)
{
	return n >= (total > 2 ? FEW_ROUNDS : ROUNDS) || (n >= FEW_ROUNDS && rdtsc() > end);
}

static void fence(bool with)
{
	if (with)
		__asm__ volatile("mfence" : : : "memory");
	else
		__asm__ volatile("" : : : "memory");
}

/*
 * Store buffering: both see 0 is allowed without fences, forbidden with. Message passing: the flag
 * without the data, forbidden.
 */
static void litmus(unsigned me)
{
	const uint64_t end = rdtsc() + LITMUS_TICKS;

	for (unsigned n = 0; total > 1; n++) {
		bool fences = n & 1;

		if (!me) {
			x = y = 0;
			litmus_ends = is_last_round(n, end);
		}
		meet();
		if (litmus_ends)
			break;
		if (me == 0) {
			x = 1;
			fence(fences);
			seen[0] = y;
		} else if (me == 1) {
			y = 1;
			fence(fences);
			seen[1] = x;
		}
		meet();
		if (!me && fences && !seen[0] && !seen[1])
			forbidden[0]++;
		if (!me)
			x = y = 0;
		meet();
		if (me == 0) {
			x = 1;
			y = 1;
		} else if (me == 1) {
			seen[0] = y;
			__asm__ volatile("" : : : "memory");
			seen[1] = x;
		}
		meet();
		if (!me && seen[0] && !seen[1])
			forbidden[1]++;
		if (total < 4)
			continue;
		if (!me)
			x = y = 0;
		meet();
		/* independent reads of independent writes: both readers agree on an order */
		if (me == 0) {
			x = 1;
		} else if (me == 1) {
			y = 1;
		} else if (me == 2) {
			seen[0] = x;
			__asm__ volatile("" : : : "memory");
			seen[1] = y;
		} else if (me == 3) {
			seen[2] = y;
			__asm__ volatile("" : : : "memory");
			seen[3] = x;
		}
		meet();
		if (!me && seen[0] && !seen[1] && seen[2] && !seen[3])
			forbidden[2]++;
	}
}

static void add(unsigned me)
{
	volatile uint64_t *split = (volatile uint64_t *)((char *)split_line + 4092);
	volatile uint32_t *in_page = (volatile uint32_t *)((char *)split_line + 62);
	uint64_t one = 1;

	(void)me;
	meet();
	for (unsigned n = 0; n < ADDS; n++)
		__atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < 200; n++)
		__asm__ volatile("lock incq %0" : "+m"(*split));
	for (unsigned n = 0; n < 200; n++)
		__asm__ volatile("lock xaddl %k1, %0; mov $1, %k1" : "+m"(*in_page), "+r"(one));
	meet();
}

static uint32_t (*volatile shared_code)(void);
static volatile uint32_t wanted;
static volatile uint32_t stale;

/* One processor changes code and tells the others; they must run the new one. */
static void modify_code(unsigned me)
{
	for (uint32_t n = 1; n <= 100; n++) {
		if (!me) {
			((volatile uint8_t *)shared_code)[1] = (uint8_t)n;
			__atomic_store_n(&wanted, n, __ATOMIC_SEQ_CST);
		}
		meet();
		__asm__ volatile("cpuid" : : "a"(0) : "rbx", "rcx", "rdx", "memory");
		if ((shared_code() & 0xff) != (wanted & 0xff))
			__atomic_add_fetch(&stale, 1, __ATOMIC_SEQ_CST);
		meet();
	}
}

static bool on_ipi(struct frame *frame)
{
	if (frame->vector == 0x40) {
		got_ipi[apic_id()]++;
		invlpg(0x8000000000);
		wrmsr(0x80b, 0);
	} else if (frame->vector == 2) {
		got_nmis++;
	} else {
		return false;
	}
	return true;
}

static volatile uint64_t seen_value;
static uint64_t *page_one, *page_two, *remote_entry;

/* A page is remapped and the others told by interrupt: afterwards nobody sees the old one. */
static void shoot_down(unsigned me)
{
	for (unsigned n = 0; n < 100; n++) {
		uint64_t *now = n & 1 ? page_two : page_one;

		if (!me) {
			unsigned before[17];

			for (unsigned k = 1; k < total; k++)
				before[k] = got_ipi[k];
			*remote_entry = (uint64_t)now | PAGE_P;
			invlpg(0x8000000000);
			wrmsr(0x830, 0xc4040);
			for (unsigned k = 1; k < total; k++)
				while (got_ipi[k] == before[k])
					cpu_relax();
		}
		meet();
		if (*(volatile uint64_t *)0x8000000000 != *now)
			__atomic_add_fetch(&seen_value, 1, __ATOMIC_SEQ_CST);
		meet();
	}
}

/*
 * Two NMIs at once, one of them may wait for the other: none is lost. Of those that come before the
 * handler of the second has returned one would be, so that who sends waits for who is behind it.
 */
static void pair_of_nmis(unsigned me)
{
	static volatile unsigned pairs;

	for (unsigned n = 1; n <= NMI_PAIRS && me < 2; n++) {
		if (me == 1) {
			wrmsr(0x830, 0x400);
			wrmsr(0x830, 0x400);
			while (pairs < n)
				cpu_relax();
			continue;
		}
		while (got_nmis < 2 * n)
			cpu_relax();
		pairs = n;
	}
	meet();
}

static void row_of_shadows(void)
{
	__asm__ volatile("mov %%ss, %%eax; .rept 200; mov %%eax, %%ss; .endr; nop" : : : "rax");
}

/*
 * With interrupts off an NMI comes in a row of MOV SS, each in the shadow of the one before. It is
 * taken behind them, and does not wait for anything else.
 */
static void nmis_in_shadows(unsigned me)
{
	static volatile unsigned wanted_nmis, sent;
	const unsigned before = got_nmis;
	unsigned late = 0;

	meet();
	for (unsigned n = 1; n <= SHADOWED_NMIS && me < 2; n++) {
		if (me == 1) {
			while (wanted_nmis < n)
				cpu_relax();
			wrmsr(0x830, 0x400);
			sent = n;
			continue;
		}
		__asm__ volatile("cli");
		wanted_nmis = n;
		while (sent < n)
			row_of_shadows();
		__asm__ volatile("cpuid" : : "a"(0) : "rbx", "rcx", "rdx", "memory");
		late += got_nmis < before + n;
		while (got_nmis < before + n)
			cpu_relax();
	}
	if (!me) {
		check_equal("NMIs in the shadow of MOV SS that wait for something", late, 0);
		__asm__ volatile("sti");
	}
	meet();
}

static uint32_t code_begun_at;
static volatile uint32_t never_there;

/*
 * All of them count in a page of code that they execute, and in the code itself, which may be an
 * older one until they serialize, but none that never was.
 */
static void add_to_code(unsigned me)
{
	uint8_t *code = (uint8_t *)(uintptr_t)shared_code;
	volatile uint32_t *in_code = (volatile uint32_t *)(code + 1);
	volatile uint32_t *beside = in_code + 500;

	if (!me)
		code_begun_at = *in_code;
	meet();
	for (unsigned n = 0; n < CODE_ADDS; n++) {
		__asm__ volatile("lock incl %0" : "+m"(*beside));
		__asm__ volatile("lock incl %0" : "+m"(*in_code));
		if (shared_code() - code_begun_at > total * CODE_ADDS)
			__atomic_add_fetch(&never_there, 1, __ATOMIC_SEQ_CST);
	}
	meet();
	__asm__ volatile("cpuid" : : "a"(0) : "rbx", "rcx", "rdx", "memory");
	if (shared_code() != *in_code)
		__atomic_add_fetch(&stale, 1, __ATOMIC_SEQ_CST);
	meet();
}

static void everything(unsigned me)
{
	if (total > 1)
		pair_of_nmis(me);
	if (total > 1)
		nmis_in_shadows(me);
	add(me);
	litmus(me);
	modify_code(me);
	add_to_code(me);
	shoot_down(me);
}

void test_other(unsigned index)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	(void)index;
	__atomic_add_fetch(&awake, 1, __ATOMIC_SEQ_CST);
	while (!total)
		cpu_relax();
	__asm__ volatile("sti");
	everything(apic_id());
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

void test_main(void)
{
	uint8_t *code = new_page();
	unsigned n;

	on_trap = on_ipi;
	page_one = new_page();
	page_two = new_page();
	page_one[0] = 1, page_two[0] = 2;
	remote_entry = map_page(0x8000000000, (uint64_t)page_one, PAGE_P);
	code[0] = 0xb8, code[5] = 0xc3;
	shared_code = (uint32_t (*)(void))code;
	n = start_processors();
	while (awake < n - 1)
		cpu_relax();
	check("all processors run", true);
	total = n;
	everything(0);
	while (finished < n - 1)
		cpu_relax();
	check_equal("two NMIs at once", got_nmis, n > 1 ? 2 * NMI_PAIRS + SHADOWED_NMIS : 0);
	check_equal("locked additions", counter, (uint64_t)n * ADDS);
	check_equal("locked additions across two pages", *(uint64_t *)((char *)split_line + 4092),
		    n * 200ull);
	check_equal("locked additions across two cache lines",
		    *(uint32_t *)((char *)split_line + 62), n * 200ull);
	check_equal("store buffering with fences", forbidden[0], 0);
	check_equal("message passing", forbidden[1], 0);
	check_equal("independent reads of independent writes", forbidden[2], 0);
	check_equal("code changed by another processor", stale, 0);
	check_equal("locked additions to code", *(uint32_t *)(code + 1) - code_begun_at,
		    n * CODE_ADDS);
	check_equal("locked additions beside code", *(uint32_t *)(code + 2001), n * CODE_ADDS);
	check_equal("code that never was", never_there, 0);
	check_equal("pages remapped by another processor", seen_value, 0);
}
