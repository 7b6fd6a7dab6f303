/*
 * Reserved bits of page table entries: every level, every bit that this processor has reserved,
 * told apart from absence and rights.
 */
#include "guest.h"

#define GVA 0x8000000000ull
enum {
	LEVELS = 4,
	RESERVED_CODE = 9,
	USER = 4,
	LARGE = 0x80,
	FIRST_RESERVED = 40,
	LAST_RESERVED = 51,
	IGNORED = 52
};

static void read_at(void *address) { (void)*(volatile uint8_t *)address; }

/* The entry of GVA in a level; 3 is the root's. */
static uint64_t *entry_of(unsigned level)
{
	uint64_t *table = (uint64_t *)(read_cr3() & ~(uint64_t)PAGE_OFFSET);

	for (unsigned at = LEVELS - 1;; at--) {
		uint64_t *entry = &table[GVA >> (12 + 9 * at) & 511];

		if (at == level)
			return entry;
		table = (uint64_t *)(*entry & 0xffffffffff000);
	}
}

static int64_t read_with(uint64_t *entry, uint64_t bits)
{
	uint64_t before = *entry;
	int64_t vector;

	*entry = before | bits;
	write_cr3(read_cr3());
	vector = try_code(read_at, (void *)GVA);
	*entry = before;
	write_cr3(read_cr3());
	return vector;
}

static void small_pages(void)
{
	unsigned faults = 0, codes = 0, ignored = 0;

	for (unsigned level = 0; level < LEVELS; level++) {
		uint64_t *entry = entry_of(level);

		for (unsigned bit = FIRST_RESERVED; bit <= LAST_RESERVED; bit++) {
			faults += read_with(entry, 1ull << bit) == 14;
			codes += last.code == RESERVED_CODE && last_cr2 == GVA;
		}
		ignored += read_with(entry, 1ull << IGNORED) == -1;
	}
	check_equal("a reserved address bit of any entry is a page fault", faults,
		    LEVELS * (LAST_RESERVED - FIRST_RESERVED + 1));
	check_equal("whose code says so", codes, LEVELS * (LAST_RESERVED - FIRST_RESERVED + 1));
	check_equal("bit 52 is ignored", ignored, LEVELS);
	check_equal("PS of a root entry is reserved",
		    (uint64_t)read_with(entry_of(LEVELS - 1), LARGE), 14);
	check_equal("and said to be", last.code, RESERVED_CODE);
}

/* A large page whose address is not a multiple of its size; bit 12 is the PAT's. */
static void large_pages(unsigned level, unsigned last_bit)
{
	uint64_t *entry = entry_of(level);
	uint64_t before = *entry;
	unsigned faults = 0;

	*entry = PAGE_P | PAGE_W | LARGE;
	check_equal("a large page", (uint64_t)read_with(entry, 0), (uint64_t)-1);
	check_equal("its PAT bit", (uint64_t)read_with(entry, 1ull << 12), (uint64_t)-1);
	for (unsigned bit = 13; bit <= last_bit; bit++)
		faults += read_with(entry, 1ull << bit) == 14 && last.code == RESERVED_CODE;
	check_equal("its alignment", faults, last_bit - 12);
	*entry = before;
	write_cr3(read_cr3());
}

void test_main(void)
{
	map_page(GVA, (uint64_t)new_page(), PAGE_P | PAGE_W);
	small_pages();
	large_pages(1, 20);
	large_pages(2, 29);
}
