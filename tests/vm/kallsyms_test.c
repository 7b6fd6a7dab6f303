/*
 * A kernel's own symbols in a guest's memory (src/vm/kallsyms.h): tables made here, in each form
 * that kernels have; then the same with bytes changed, where a name must be letters or nothing.
 *
 * usage: kallsyms_test CASES SEED
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/memory.h"
#include "vm/kallsyms.h"

enum {
	RAM_BYTES = 8 << 20,
	ROOT = 0x1000,
	UPPER = 0x2000,
	DIRECTORY = 0x3000,
	SMALL_PAGES = 0x4000,
	IMAGE = 4 << 20, /* the kernel's, 2 MiB in pages of 4 KiB, then 2 MiB in one */
	TABLES = IMAGE + 0x1ff000, /* across the border of the two */
	SYMBOLS = 1000,
	TEXT = 0x1000, /* the first symbol, from the kernel's begin */
	STEP = 48,
	PRESENT = 1,
	LARGE = 0x81,
	NX_HIGH_BIT = 63
};
#define KERNEL 0xffffffff81000000ull

enum form { FORM_NEW, FORM_OLD, FORM_OLD_WITH_LIST, FORM_PLAIN_OFFSETS, FORMS };

static struct guest_memory memory;
static uint8_t *ram;
static uint64_t at;
static uint64_t seed;
static int failures;

static uint32_t next_random(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % below);
}

static void put(const void *from, size_t bytes)
{
	memcpy(ram + at, from, bytes);
	at += bytes;
}
static void put16(uint16_t value) { put(&value, sizeof(value)); }
static void put32(uint32_t value) { put(&value, sizeof(value)); }
static void put64(uint64_t value) { put(&value, sizeof(value)); }
static void put_at(uint64_t gpa, uint64_t value) { memcpy(ram + gpa, &value, sizeof(value)); }
static void align(void) { at = (at + 7) & ~7ull; }

/* The window's tables: two entries of 2 MiB each. */
static void make_page_tables(void)
{
	unsigned first = KERNEL >> 21 & 511;

	put_at(ROOT + 511 * 8, UPPER | PRESENT);
	put_at(UPPER + 510 * 8, DIRECTORY | PRESENT);
	put_at(DIRECTORY + first * 8, SMALL_PAGES | PRESENT);
	for (unsigned n = 0; n < 512; n++)
		put_at(SMALL_PAGES + n * 8, (IMAGE + (uint64_t)n * GUEST_PAGE_BYTES) | PRESENT |
						    1ull << NX_HIGH_BIT);
	put_at(DIRECTORY + (first + 1) * 8, (IMAGE + (2ull << 20)) | LARGE | 1ull << NX_HIGH_BIT);
}

/* Token 1 is "sys_"; a letter or digit is itself. */
static void put_tokens(void)
{
	uint16_t index[256];
	uint64_t begin = at;

	for (unsigned n = 0; n < 256; n++) {
		index[n] = (uint16_t)(at - begin);
		if (n == 1)
			put("sys_", 4);
		else
			put(&(uint8_t){ n ? (uint8_t)n : '#' }, 1);
		put("", 1);
	}
	align();
	for (unsigned n = 0; n < 256; n++)
		put16(index[n]);
	align();
}

/* "T", "sys_", then four digits; each 100th is long: its length is of two bytes. */
static void put_name(unsigned n, uint32_t *ret_bytes)
{
	bool is_long = n % 100 == 99;
	unsigned letters = is_long ? 130 : 0;
	uint8_t tokens[140] = { 'T', 1 };
	char text[8];

	snprintf(text, sizeof(text), "%04u", n);
	memcpy(tokens + 2, text, 4);
	memset(tokens + 6, 'x', letters);
	letters += 6;
	if (is_long)
		put(&(uint8_t[]){ (uint8_t)(0x80 | (letters & 0x7f)), (uint8_t)(letters >> 7) }, 2);
	else
		put(&(uint8_t){ (uint8_t)letters }, 1);
	put(tokens, letters);
	*ret_bytes += letters + 1 + is_long;
}

static void put_names(bool with_list)
{
	uint32_t markers[SYMBOLS / 256 + 1];
	uint32_t bytes = 0;

	put32(SYMBOLS);
	align();
	for (unsigned n = 0; n < SYMBOLS; n++) {
		if (n % 256 == 0)
			markers[n / 256] = bytes;
		put_name(n, &bytes);
	}
	align();
	put(markers, sizeof(markers));
	align();
	for (unsigned n = 0; with_list && n < SYMBOLS; n++)
		put(&(uint8_t[]){ 1, (uint8_t)(n >> 8), (uint8_t)n }, 3);
	align();
}

static void put_addresses(enum form form)
{
	for (unsigned n = 0; n < SYMBOLS; n++) {
		int32_t offset = (int32_t)(TEXT + n * STEP);

		put32(form == FORM_PLAIN_OFFSETS ? (uint32_t)offset : (uint32_t)(-1 - offset));
	}
	align();
	put64(KERNEL);
}

static void make_kernel(enum form form)
{
	bool is_old = form == FORM_OLD || form == FORM_OLD_WITH_LIST;

	memset(ram + IMAGE, 0xcc, 4 << 20);
	at = TABLES - 0x3000;
	if (is_old)
		put_addresses(form);
	put_names(form == FORM_OLD_WITH_LIST);
	put_tokens();
	if (!is_old)
		put_addresses(form);
}

static void expect(bool holds, const char *what, enum form form)
{
	if (!holds)
		printf("FAIL form %d: %s\n", (int)form, what);
	failures += !holds;
}

static void expect_name(struct kallsyms *kallsyms, uint64_t offset, const char *want,
			enum form form)
{
	char got[KALLSYMS_NAME_BYTES];

	kallsyms_name(kallsyms, KERNEL + offset, got);
	if (strcmp(got, want))
		printf("FAIL form %d: %#lx is %s, not %s\n", (int)form, offset, got, want);
	failures += strcmp(got, want) != 0;
}

static void test_form(enum form form)
{
	static struct kallsyms kallsyms;
	char text[KALLSYMS_NAME_BYTES];

	make_kernel(form);
	expect(kallsyms_find(&kallsyms, &memory, ROOT), "no symbols found", form);
	expect_name(&kallsyms, TEXT, "sys_0000+0", form);
	expect_name(&kallsyms, TEXT + STEP + 7, "sys_0001+0x7", form);
	expect_name(&kallsyms, TEXT + 256 * STEP, "sys_0256+0", form);
	expect_name(&kallsyms, TEXT + 998 * STEP + 1, "sys_0998+0x1", form);
	expect_name(&kallsyms, TEXT - 1, "", form);
	expect_name(&kallsyms, TEXT + 999 * STEP + (2 << 20), "", form);
	kallsyms_name(&kallsyms, KERNEL + TEXT + 99 * STEP, text);
	expect(!strncmp(text, "sys_0099xxx", 11) && strchr(text, '+'), "a long name is cut", form);
	expect(!kallsyms_find(&kallsyms, &memory, DIRECTORY), "symbols without their tables", form);
}

/* A guest with the whole window mapped, over and over to one page: it is not all read. */
static void test_large_window(void)
{
	static struct kallsyms kallsyms;
	const unsigned first = KERNEL >> 21 & 511;

	make_kernel(FORM_NEW);
	for (unsigned n = 0; n < 512; n++)
		put_at(DIRECTORY + n * 8, (2ull << 20) | LARGE);
	put_at(DIRECTORY + 510 * 8, SMALL_PAGES | PRESENT);
	put_at(DIRECTORY + 511 * 8, (IMAGE + (2ull << 20)) | LARGE);
	expect(!kallsyms_find(&kallsyms, &memory, ROOT), "symbols behind 1 GiB", FORM_NEW);
	for (unsigned n = 0; n < 512; n++)
		put_at(DIRECTORY + n * 8, 0);
	put_at(DIRECTORY + (first - 1) * 8, (2ull << 20) | LARGE);
	make_page_tables();
	expect(kallsyms_find(&kallsyms, &memory, ROOT), "no symbols behind 2 MiB", FORM_NEW);
}

static bool is_decent(const char *text)
{
	for (; *text; text++)
		if (*text < '$' || *text > 'z')
			return false;
	return true;
}

/* Bytes of the tables, and of the page tables, are others. */
static void test_damaged(unsigned cases)
{
	static struct kallsyms kallsyms;

	for (unsigned n = 0; n < cases; n++) {
		enum form form = (enum form)(n % FORMS);
		char text[KALLSYMS_NAME_BYTES];

		make_page_tables();
		make_kernel(form);
		for (unsigned changes = 1 + next_random(3); changes; changes--)
			ram[TABLES - 0x3000 + next_random((uint32_t)(at - TABLES + 0x3000))] =
				(uint8_t)next_random(256);
		if (!next_random(8))
			ram[ROOT + next_random(4 * GUEST_PAGE_BYTES)] = (uint8_t)next_random(256);
		if (!kallsyms_find(&kallsyms, &memory, ROOT))
			continue;
		for (unsigned names = 0; names < 16; names++) {
			kallsyms_name(&kallsyms, KERNEL + TEXT + next_random(SYMBOLS * STEP), text);
			expect(strlen(text) < sizeof(text) && is_decent(text),
			       "what is no name", form);
		}
	}
}

int main(int argc, char **argv)
{
	unsigned cases = argc > 1 ? (unsigned)atoi(argv[1]) : 100;

	seed = argc > 2 ? (uint64_t)atoll(argv[2]) : 1;
	ram = calloc(1, guest_memory_footprint_bytes(RAM_BYTES));
	if (!ram)
		return 70;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	make_page_tables();
	for (unsigned form = 0; form < FORMS; form++)
		test_form((enum form)form);
	test_large_window();
	test_damaged(cases);
	printf("kallsyms_test: %u damaged kernels, %d failures\n", cases, failures);
	free(ram);
	return failures != 0;
}
