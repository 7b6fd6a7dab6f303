/*
 * A guest whose memory comes while it runs (demand.py): every page says which it is, and each third
 * how often it was written. They are looked at in an order in which no page is its neighbour's
 * neighbour, again and again, until a key says that it is enough. On all processors, each a page of
 * its own. As guest-looks (away.py) every processor sleeps between two rounds, and the first says
 * how long it waited for pages, in 100 ns, each time that it did for some (bench/away). As
 * guest-reads they write nothing, and look at the first pages alone.
 */
#include "hv.h"
#include "report.h"

#ifndef REST_100NS
#define REST_100NS 0
#endif
#ifndef ONLY_READS
#define ONLY_READS 0
#endif

enum { WAITS = 4096, WAIT_STEP_100NS = 10, WAIT_LEAST_100NS = 200, WAITS_SAID = 64 };
enum { PAGES = 12288, STEP = 7919, WORDS = PAGE_BYTES / 8, EMPTY = 8, WRITTEN = 3, OTHERS = 16 };
enum { LOOKED_AT = ONLY_READS ? PAGES / 3 : PAGES };

static uint64_t *const memory = (uint64_t *)0x4000000;
static volatile uint64_t wrong[OTHERS];
static unsigned total;
static uint32_t waits[WAITS]; /* how many were so long, in steps; the last: or longer */

static uint64_t name_of(uint64_t page) { return (page + 1) * 0x9e3779b97f4a7c15; }

static uint64_t *words_of(uint64_t page) { return &memory[page * WORDS]; }

static void fill(void)
{
	for (uint64_t page = 0; page < PAGES; page++)
		if (page % EMPTY) {
			words_of(page)[0] = name_of(page);
			words_of(page)[WORDS - 1] = ~name_of(page);
		}
}

static bool is_written(uint64_t page)
{
	return !ONLY_READS && page % EMPTY && !(page % WRITTEN);
}

static bool is_right(uint64_t page, uint64_t round)
{
	const uint64_t *words = words_of(page);
	const uint64_t name = page % EMPTY ? name_of(page) : 0;

	return words[0] == name && words[WORDS - 1] == (page % EMPTY ? ~name : 0) &&
	       (is_written(page) ? words[1] == round : !words[1]);
}

/* A page that is not there; of the first processor. */
static void note_wait(const volatile uint64_t *words)
{
	const uint64_t since = rdmsr(MSR_TIME);
	uint64_t took;

	(void)words[0];
	took = rdmsr(MSR_TIME) - since;
	if (took >= WAIT_LEAST_100NS)
		waits[took / WAIT_STEP_100NS < WAITS ? took / WAIT_STEP_100NS : WAITS - 1]++;
}

static uint64_t wait_of(uint64_t before)
{
	uint64_t n = 0;

	for (uint64_t seen = waits[0]; seen <= before && n < WAITS - 1; seen += waits[++n])
		;
	return n * WAIT_STEP_100NS;
}

static void say_waits(void)
{
	uint64_t count = 0;

	for (unsigned n = 0; n < WAITS; n++)
		count += waits[n];
	if (count >= WAITS_SAID) {
		print("WAITS ");
		print_count((unsigned)count);
		print(" least ");
		print_count((unsigned)wait_of(0));
		print(" p50 ");
		print_count((unsigned)wait_of(count / 2));
		print(" p99 ");
		print_count((unsigned)wait_of(count * 99 / 100));
		print("\n");
	}
	for (unsigned n = 0; n < WAITS; n++)
		waits[n] = 0;
}

/* Those of one processor. */
static void look(unsigned me, uint64_t round)
{
	for (uint64_t n = me; n < LOOKED_AT; n += total) {
		const uint64_t page = n * STEP % LOOKED_AT;

		if (REST_100NS && !me)
			note_wait(words_of(page));
		wrong[me] += !is_right(page, round);
		if (is_written(page))
			words_of(page)[1] = round + 1;
	}
}

static void rest(void)
{
	if (!REST_100NS)
		return;
	wrmsr(MSR_TIMER0 + 1, rdmsr(MSR_TIME) + REST_100NS);
	wrmsr(MSR_TIMER0, 1 | 1 << 12 | 0x70 << 4);
	__asm__ volatile("sti; hlt; cli");
}

static bool is_told_to_end(void) { return inb(0x3fd) & 1; }

void test_other(unsigned me)
{
	count_interrupts();
	while (!__atomic_load_n(&total, __ATOMIC_ACQUIRE))
		cpu_relax();
	for (uint64_t round = 0;; round++) {
		look(me, round);
		rest();
	}
}

void test_main(void)
{
	uint64_t all = 0;

	fill();
	count_interrupts();
	__atomic_store_n(&total, start_processors(), __ATOMIC_RELEASE);
	print("READY\n");
	for (uint64_t round = 0; !is_told_to_end() || !round; round++) {
		look(0, round);
		print("ROUND\n");
		if (REST_100NS)
			say_waits();
		rest();
	}
	for (unsigned n = 0; n < total; n++)
		all += wrong[n];
	check_equal("pages that are not what they were", all, 0);
}
