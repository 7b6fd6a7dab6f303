/* villain-translator: acts against what decodes, translates or emulates instructions. README.md. */
#include "villain.h"

static void act_in_memory(void)
{
	uint8_t *page = new_page();
	uint8_t *border = new_page();
	struct place places[] = {
		{ "at an address that is not canonical", NOT_CANONICAL + PAGE_BYTES, 0 },
		{ "at the top of the upper half", 0xffffffffffffffc0, CANONICAL },
		{ "across the end of the lower half", NOT_CANONICAL - 1, BORDER },
		{ "in an absent page", ABSENT_GVA + PAGE_BYTES / 2, CANONICAL },
		{ "in a read-only page", DATA_GVA + PAGE_BYTES / 2, CANONICAL | MAPPED },
		{ "across into an absent page", DATA_GVA + 3 * PAGE_BYTES - 1, CANONICAL | BORDER },
	};

	map_page(DATA_GVA, (uint64_t)page, PAGE_P | PAGE_NX);
	map_page(DATA_GVA + 2 * PAGE_BYTES, (uint64_t)border, PAGE_P | PAGE_W);
	map_page(NOT_CANONICAL - PAGE_BYTES, (uint64_t)border, PAGE_P | PAGE_W);
	act_in_places(places, sizeof(places) / sizeof(places[0]));
}

void test_main(void)
{
	villain_open();
	act_encodings();
	act_in_memory();
	act_pages();
	act_system();
	act_tables(); /* the last: it writes into tables that are in use */
}
