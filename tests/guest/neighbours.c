/*
 * A table of the second level is written at each flush, elsewhere than at the entry that the pages
 * in use come through: they stay cached. neighbours.sh looks at what the engine counted; here is
 * what must be right all the same.
 */
#include "guest.h"

enum { PAGES = 64, ROUNDS = 1000, LARGE_BYTES = 2 << 20 };
#define AT 0x40000000ull
#define NEIGHBOUR (AT + LARGE_BYTES)
extern uint64_t page_tables[];

static volatile uint64_t *directory(void)
{
	uint64_t *upper = (uint64_t *)(page_tables[0] & ~(uint64_t)PAGE_OFFSET);

	return (volatile uint64_t *)(upper[AT >> 30] & ~(uint64_t)PAGE_OFFSET);
}

static bool all_are(unsigned value)
{
	bool good = true;

	for (unsigned n = 0; n < PAGES; n++)
		good &= *(volatile uint8_t *)(AT + n * PAGE_BYTES) == (uint8_t)(value + n);
	return good;
}

static void fill(uint64_t gva, unsigned value)
{
	for (unsigned n = 0; n < PAGES; n++) {
		map_page(gva + n * PAGE_BYTES, (uint64_t)new_page(), PAGE_P | PAGE_W);
		*(volatile uint8_t *)(gva + n * PAGE_BYTES) = (uint8_t)(value + n);
	}
}

static bool is_dirty(uint64_t entry) { return entry & PAGE_D; }
static void store(void *at) { *(volatile uint8_t *)at = 1; }

void test_main(void)
{
	volatile uint64_t *entry, *neighbour;
	uint64_t here, there;
	bool good = true;

	fill(AT, 1);
	fill(NEIGHBOUR, 101);
	entry = &directory()[AT >> 21 & 511];
	neighbour = entry + 1;
	for (unsigned n = 0; n < ROUNDS; n++) {
		*neighbour ^= PAGE_U;
		write_cr3(read_cr3());
		good &= all_are(1);
	}
	check("pages beside an entry that is written", good);

	here = *entry;
	there = *neighbour;
	*entry = there;
	write_cr3(read_cr3());
	check("another table behind the entry", all_are(101));
	*entry = here;
	write_cr3(read_cr3());
	check("and the first one again", all_are(1));
	*entry = here & ~(uint64_t)PAGE_W;
	write_cr0(read_cr0() | 1 << 16);
	write_cr3(read_cr3());
	check("fewer rights", try_code(store, (void *)AT) == 14 && all_are(1));
	*entry = here;
	store((void *)AT); /* a fill between a change and its flush */
	*entry = here & ~(uint64_t)PAGE_W;
	write_cr3(read_cr3());
	check("which are not kept from a time of more", try_code(store, (void *)AT) == 14);
	*entry = here;
	write_cr3(read_cr3());

	*entry = 0x83; /* a large page: its leaf is an entry of this table */
	write_cr3(read_cr3());
	(void)*(volatile uint8_t *)AT;
	check("a large page that was read is not dirty", !is_dirty(*entry));
	store((void *)(AT + 0x9800));
	check("one that was written is", is_dirty(*entry));
	*entry &= ~(uint64_t)PAGE_D;
	write_cr3(read_cr3());
	store((void *)(AT + 0x9801));
	check("and again when that was taken away", is_dirty(*entry));
	*entry &= ~(uint64_t)PAGE_D;
	(void)*(volatile uint8_t *)(AT + 0xa000);
	write_cr3(read_cr3());
	store((void *)(AT + 0x9802));
	check("also with a fill before the flush", is_dirty(*entry));
	*entry &= ~(uint64_t)PAGE_A;
	write_cr3(read_cr3());
	(void)*(volatile uint8_t *)AT;
	check("and so is A", *entry & PAGE_A);
}
