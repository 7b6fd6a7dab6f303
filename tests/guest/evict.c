/*
 * More code than the code cache of a small --overhead holds: blocks are evicted, made again,
 * changed, while one processor stays in a loop whose code is as old as any.
 */
#include "guest.h"

enum {
	PAGES = 1200,
	PIECES = 128, /* of a page: blocks, each chained to the next */
	PIECE_BYTES = 32,
	PIECE_USED_BYTES = 11,
};

static uint8_t *pages[PAGES];
static volatile unsigned total, awake, arrived, generation, finished, runners_done;
static volatile uint64_t wrong_sums, wrong_loops;

static void meet(void)
{
	unsigned before = generation;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == total) {
		arrived = 0;
		__atomic_store_n(&generation, before + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (__atomic_load_n(&generation, __ATOMIC_SEQ_CST) == before)
		cpu_relax();
}

/* add eax, n; mov [rsp - 64], eax; jmp to the next piece, or ret */
static void make_page(uint8_t *page, unsigned number)
{
	static const uint8_t piece[] = { 0x05, 0,    0,    0,    0,                  /* add */
					 0x89, 0x44, 0x24, 0xc0,                   /* mov */
					 0xeb, PIECE_BYTES - PIECE_USED_BYTES };      /* jmp */

	for (unsigned n = 0; n < PIECES; n++) {
		uint8_t *at = page + n * PIECE_BYTES;

		for (unsigned k = 0; k < sizeof(piece); k++)
			at[k] = piece[k];
		*(uint32_t *)(void *)(at + 1) = number + n;
	}
	page[(PIECES - 1) * PIECE_BYTES + 9] = 0xc3;
}

static uint32_t run(const uint8_t *page)
{
	uint32_t sum = 0;

	__asm__ volatile("call *%1" : "+a"(sum) : "r"(page) : "memory", "cc");
	return sum;
}

static uint32_t sum_of(unsigned number)
{
	return PIECES * number + PIECES * (PIECES - 1) / 2;
}

static void run_all(unsigned me, uint32_t more)
{
	for (unsigned n = 0; n < PAGES; n++) {
		unsigned number = (n + me * (PAGES / 7)) % PAGES;

		if (run(pages[number]) != sum_of(number) + more)
			__atomic_add_fetch(&wrong_sums, 1, __ATOMIC_SEQ_CST);
	}
}

static void change_all(void)
{
	for (unsigned n = 0; n < PAGES; n++)
		++*(volatile uint32_t *)(void *)(pages[n] + 1);
}

static void serialize(void)
{
	__asm__ volatile("cpuid" : : "a"(0) : "rbx", "rcx", "rdx", "memory");
}

/* The last of several stays in a loop of one block meanwhile. */
static void stay(unsigned runners)
{
	uint64_t turns = 0;
	uint64_t seen;

	do {
		__asm__ volatile("mov $100000, %%ecx; 1: inc %0; dec %%ecx; jnz 1b"
				 : "+r"(turns)
				 :
				 : "rcx", "cc");
		seen = turns % 100000;
		if (seen)
			__atomic_add_fetch(&wrong_loops, 1, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&runners_done, __ATOMIC_SEQ_CST) != runners);
}

static void everything(unsigned me)
{
	unsigned runners = total > 2 ? total - 1 : total;

	for (uint32_t round = 0; round < 3; round++) {
		meet();
		if (!me && round)
			change_all();
		if (!me)
			runners_done = 0;
		meet();
		serialize();
		if (me < runners) {
			run_all(me, round);
			__atomic_add_fetch(&runners_done, 1, __ATOMIC_SEQ_CST);
		} else {
			stay(runners);
		}
	}
}

void test_other(unsigned index)
{
	(void)index;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	__atomic_add_fetch(&awake, 1, __ATOMIC_SEQ_CST);
	while (!total)
		cpu_relax();
	everything(apic_id());
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

void test_main(void)
{
	unsigned n;

	for (unsigned k = 0; k < PAGES; k++) {
		pages[k] = new_page();
		make_page(pages[k], k);
	}
	n = start_processors();
	while (awake < n - 1)
		cpu_relax();
	total = n;
	everything(0);
	while (finished < n - 1)
		cpu_relax();
	check_equal("sums of code that was evicted, made again and changed", wrong_sums, 0);
	check_equal("turns of a loop whose code was evicted", wrong_loops, 0);
}
