/*
 * Free page reporting while other processors take what was reported: an allocator of pages that are
 * reported (memory heat hint) before they are free again, as Linux does it. What a processor has
 * written into a page after it was reported stays, whatever others report meanwhile; and a page
 * reads as zero when it is taken.
 */
#include "hv.h"

enum {
	PAGES = 24,
	TURNS = 3000,
	OTHERS_MOST = 15,
	WORDS = PAGE_BYTES / 8,
	STRIDE = 73,
	COLD = 2,
	HELD = 3
};
enum { NOBODYS, SOMEBODYS };

static uint64_t *const memory = (uint64_t *)0x8000000;
static uint32_t owner[PAGES];
static uint64_t *input[OTHERS_MOST + 1];
static unsigned recent, not_zero, lost, refused, done;

static uint64_t *page_at(unsigned n) { return memory + (uint64_t)n * WORDS; }

/* Some words of it, so that a page costs little. */
static bool is_all(const volatile uint64_t *page, uint64_t value)
{
	for (unsigned n = 0; n < WORDS; n += STRIDE)
		if (page[n] != value)
			return false;
	return true;
}

static void write_all(volatile uint64_t *page, uint64_t value)
{
	for (unsigned n = 0; n < WORDS; n += STRIDE)
		page[n] = value;
}

static bool report(unsigned n, unsigned self)
{
	input[self][0] = COLD;
	input[self][1] = gpa(page_at(n));
	return umbra_call(&hv, umbra_rep(0x8003, 1), gpa(input[self]), 0) == 1ull << 32;
}

static void count(unsigned *what) { __atomic_fetch_add(what, 1, __ATOMIC_SEQ_CST); }

struct held {
	unsigned page;
	uint64_t tag;
};

/* A page that is nobody's, written; false: it is somebody's. */
static bool take(unsigned n, uint64_t tag)
{
	if (__atomic_exchange_n(&owner[n], SOMEBODYS, __ATOMIC_ACQUIRE) != NOBODYS)
		return false;
	if (!is_all(page_at(n), 0))
		count(&not_zero);
	write_all(page_at(n), tag);
	return true;
}

static void give_back(const struct held *held, unsigned self)
{
	if (!is_all(page_at(held->page), held->tag))
		count(&lost);
	if (!report(held->page, self))
		count(&refused);
	__atomic_store_n(&recent, held->page, __ATOMIC_RELAXED);
	__atomic_store_n(&owner[held->page], NOBODYS, __ATOMIC_RELEASE);
}

/* Each has some pages at a time, so that others are reported while it has them. */
static void use_pages(unsigned self)
{
	struct held held[HELD] = { 0 };

	for (unsigned turn = 0; turn < TURNS; turn++) {
		struct held *one = &held[turn % HELD];
		/* every other time what was reported last */
		unsigned n = turn & 1 ? __atomic_load_n(&recent, __ATOMIC_RELAXED)
				      : (turn * 7 + self * 5) % PAGES;

		if (one->tag)
			give_back(one, self);
		one->page = n;
		one->tag = (uint64_t)self << 32 | (turn + 1);
		if (!take(n, one->tag))
			one->tag = 0;
	}
	for (unsigned n = 0; n < HELD; n++)
		if (held[n].tag)
			give_back(&held[n], self);
}

void test_other(unsigned index)
{
	use_pages(index);
	count(&done);
}

void test_main(void)
{
	unsigned processors;

	hv_open();
	for (unsigned n = 0; n <= OTHERS_MOST; n++)
		input[n] = new_page();
	for (unsigned n = 0; n < PAGES; n++)
		write_all(page_at(n), 0);
	processors = start_processors();
	use_pages(0);
	while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < processors - 1)
		__asm__ volatile("pause");
	check_equal("each report was taken", refused, 0);
	check_equal("what was reported reads as zero", not_zero, 0);
	check_equal("what was written after it was reported stays", lost, 0);
}
