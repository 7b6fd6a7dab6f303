/*
 * Sixteen address spaces, one after the other, round and round, on one processor after the other:
 * in each a kernel with SMAP touches pages of its own, which are global and the same in all, and
 * with AC the user's. rounds.sh looks at what the engine counted; here is what must be right all
 * the same. The command line: how many rounds.
 */
#include "guest.h"

enum { SPACES = 16, PAGES = 64, TABLE_WORDS = 512 };
enum { CR4_PGE = 1 << 7, CR4_SMAP = 1 << 21 };
#define SLOT (1ull << 39) /* what an entry of the highest table is for */
#define USER (100 * SLOT)
#define KERNEL (200 * SLOT)

extern uint64_t boot_information, page_tables[];
static uint64_t *roots[SPACES];
static volatile uint32_t ready, turn;
static uint64_t rounds, user_wrong, kernel_wrong;

static void stac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xcb" : : : "memory"); }
static void clac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xca" : : : "memory"); }

static volatile uint8_t *page(uint64_t at, unsigned n)
{
	return (volatile uint8_t *)(at + n * PAGE_BYTES);
}

static void touch(unsigned space)
{
	for (unsigned n = 0; n < PAGES; n++)
		kernel_wrong += *page(KERNEL, n) != (uint8_t)(n + 1);
	stac();
	for (unsigned n = 0; n < PAGES; n++)
		user_wrong += *page(USER, n) != (uint8_t)(space * 3 + n);
	clac();
}

static void go_round(unsigned me)
{
	const uint64_t own = read_cr3();

	write_cr4(read_cr4() | CR4_PGE | CR4_SMAP);
	while (turn != me)
		cpu_relax();
	for (uint64_t round = 0; round < rounds; round++)
		for (unsigned space = 0; space < SPACES; space++) {
			write_cr3((uint64_t)roots[space]);
			touch(space);
		}
	write_cr3(own);
	turn = me + 1;
}

void test_other(unsigned index)
{
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	go_round(index);
}

static uint64_t number_of_rounds(void)
{
	const char *text = (const char *)(uint64_t)*(uint32_t *)(boot_information + 16);
	uint64_t number = 0;

	while (*text && (*text < '0' || *text > '9'))
		text++;
	for (; *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (uint64_t)(*text - '0');
	return number ? number : 1;
}

/* Written where they lie, which all spaces have at the same address; mapped once. */
static uint8_t *make_page(uint8_t value)
{
	uint8_t *bytes = new_page();

	bytes[0] = value;
	return bytes;
}

static void make_spaces(void)
{
	for (unsigned n = 0; n < PAGES; n++)
		map_page(KERNEL + n * PAGE_BYTES, (uint64_t)make_page((uint8_t)(n + 1)),
			 PAGE_P | PAGE_W | PAGE_G);
	for (unsigned space = 0; space < SPACES; space++) {
		const uint64_t at = (space + 1) * SLOT;

		for (unsigned n = 0; n < PAGES; n++)
			map_page(at + n * PAGE_BYTES,
				 (uint64_t)make_page((uint8_t)(space * 3 + n)),
				 PAGE_P | PAGE_W | PAGE_U);
		roots[space] = new_page();
	}
	for (unsigned space = 0; space < SPACES; space++) {
		for (unsigned n = 0; n < TABLE_WORDS; n++)
			roots[space][n] = page_tables[n];
		roots[space][USER / SLOT] = page_tables[space + 1];
	}
}

void test_main(void)
{
	unsigned processors;

	rounds = number_of_rounds();
	make_spaces();
	processors = start_processors();
	while (ready < processors - 1)
		cpu_relax();
	go_round(0);
	while (turn != processors)
		cpu_relax();
	check_equal("pages of the kernel with something else", kernel_wrong, 0);
	check_equal("pages of a user with something else", user_wrong, 0);
}
