/*
 * One set of page tables that all processors use and change at once, without a word to each other.
 * The command line: how many rounds; 0: only what common.sh counts.
 *
 *   pages    of each processor PAGES, all in one page table; a round gives one another frame, in
 *            which the round's number stands
 *   told[]   of each page: a round whose entry is written
 *
 * Who has flushed must see its own last round, whatever the others have cached meanwhile, and of
 * the others' pages no round that is older than what was told before it flushed.
 *
 * Before that one processor after the other touches the same pages.
 */
#include "guest.h"

enum { CPUS = 8, PAGES = 8, FRAMES = 12, TOUCHED = 2048 };
#define AT 0x8000000000ull
#define TOUCHED_AT 0x9000000000ull

extern uint64_t boot_information;
static volatile uint64_t told[CPUS * PAGES];
static volatile uint64_t *entries[CPUS * PAGES];
static uint64_t *frames[CPUS][FRAMES];
static volatile uint32_t count, ready, turn, done;
static uint64_t rounds, own_wrong, other_wrong;

static volatile uint64_t *page(unsigned n)
{
	return (volatile uint64_t *)(AT + (uint64_t)n * PAGE_BYTES);
}

static void touch(void)
{
	for (unsigned n = 0; n < TOUCHED; n++)
		(void)*(volatile uint8_t *)(TOUCHED_AT + (uint64_t)n * PAGE_BYTES);
}

/* Of the whole, of a page, of the whole by CR4.PGE. */
static void flush(uint64_t round, volatile uint64_t *at)
{
	enum { CR4_PGE = 1 << 7 };

	switch (round % 8) {
	case 0:
	case 1:
	case 2: write_cr3(read_cr3()); break;
	case 3:
		write_cr4(read_cr4() ^ CR4_PGE);
		write_cr4(read_cr4() ^ CR4_PGE);
		break;
	default: invlpg((uint64_t)at); break;
	}
}

static void change_own(unsigned me, uint64_t round)
{
	unsigned n = me * PAGES + (unsigned)(round * 5 % PAGES);
	uint64_t *frame = frames[me][round % FRAMES];

	*(volatile uint64_t *)frame = round;
	*entries[n] = (uint64_t)frame | PAGE_P | PAGE_W;
	flush(round, page(n));
	if (*page(n) != round)
		__atomic_add_fetch(&own_wrong, 1, __ATOMIC_SEQ_CST);
	told[n] = round;
}

static void look_at_another(unsigned me, uint64_t round)
{
	unsigned n = (unsigned)(round * 2654435761u >> 7) % (count * PAGES);
	uint64_t before = told[n];

	if (n / PAGES == me)
		return;
	if (round & 1) {
		(void)*page(n); /* as it may have been cached */
		return;
	}
	invlpg((uint64_t)page(n));
	if (*page(n) < before)
		__atomic_add_fetch(&other_wrong, 1, __ATOMIC_SEQ_CST);
}

static void everything(unsigned me)
{
	while (turn != me)
		cpu_relax();
	touch();
	turn = me + 1;
	while (turn != count)
		cpu_relax();
	for (uint64_t round = 1; round <= rounds; round++) {
		change_own(me, round);
		for (unsigned n = 0; n < 4; n++)
			look_at_another(me, round * 4 + n);
	}
}

void test_other(unsigned index)
{
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!count)
		cpu_relax();
	everything(index);
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
}

static uint64_t number_of_rounds(void)
{
	const char *text = (const char *)(uint64_t)*(uint32_t *)(boot_information + 16);
	uint64_t number = 0;

	while (*text && (*text < '0' || *text > '9'))
		text++;
	if (!*text)
		return 10000;
	for (; *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (uint64_t)(*text - '0');
	return number;
}

static void make_pages(void)
{
	uint64_t *same = new_page();

	for (unsigned n = 0; n < CPUS * PAGES; n++) {
		if (n % PAGES == 0)
			for (unsigned k = 0; k < FRAMES; k++)
				frames[n / PAGES][k] = new_page();
		entries[n] = map_page(AT + (uint64_t)n * PAGE_BYTES, (uint64_t)frames[n / PAGES][0],
				      PAGE_P | PAGE_W);
	}
	for (unsigned n = 0; n < TOUCHED; n++)
		map_page(TOUCHED_AT + (uint64_t)n * PAGE_BYTES, (uint64_t)same, PAGE_P);
}

void test_main(void)
{
	unsigned processors;

	rounds = number_of_rounds();
	make_pages();
	processors = start_processors();
	while (ready < processors - 1)
		cpu_relax();
	count = processors;
	everything(0);
	while (done < processors - 1)
		cpu_relax();
	check_equal("rounds that their own processor does not see", own_wrong, 0);
	check_equal("older rounds than were told", other_wrong, 0);
}
