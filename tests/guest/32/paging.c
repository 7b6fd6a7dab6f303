/*
 * 32-bit paging: two levels of 4-byte entries, pages of 4 KiB and 4 MiB, reserved bits, rights at
 * both levels with and without CR0.WP, accessed and dirty flags, what a page fault says.
 */
#include "page_fault.h"

enum { LARGE_BYTES = 4 << 20, SCRATCH = 64, RESERVED_21 = 1 << 21, ABOVE_4_GIB = 1 << 13 };
/* The first 4 MiB are themselves, by a table; each of these is 4 MiB further on. */
enum { AT = 0x40000000, AT_LARGE = 0x50000000, AT_USER = 0x60000000, TOP = 0xfffff000 };

static volatile uint32_t directory[1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t low[1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t table[1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t top[1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t scratch[SCRATCH][1024] __attribute__((aligned(PAGE_BYTES)));

static volatile uint32_t *entry_of(volatile uint32_t *tables, uint32_t gva)
{
	return &tables[gva >> 12 & 1023];
}

static void set_entry(uint32_t gva, uint32_t entry)
{
	*entry_of(table, gva) = entry;
	invlpg(gva);
}

static void set_directory(uint32_t gva, uint32_t entry)
{
	directory[gva >> 22] = entry;
	invlpg(gva);
}

/* As a user: code at AT_USER with the address in EAX. */
SNIPPET(32, user_read, "movl (%eax), %eax; int $0x80")
SNIPPET(32, user_write, "movl %eax, (%eax); int $0x80")
static void check_user(const char *name, const uint8_t *code, const uint8_t *end, uint32_t gva,
		       int vector, uint32_t error)
{
	enum { MOV_EAX = 0xb8, MOV_BYTES = 5 };
	const uint32_t frame[] = { AT_USER, USER_CODE, 2, AT_USER + PAGE_BYTES, USER_DATA };

	*(volatile uint8_t *)scratch[0] = MOV_EAX;
	*(volatile uint32_t *)((uint8_t *)scratch[0] + 1) = gva;
	copy(at(scratch[0]) + MOV_BYTES, code, end);
	check_equal(name, (uint32_t)try_iret(frame, 5), (uint32_t)vector);
	if (vector == PF) {
		check_equal("its code", last.code, error);
		check_equal("CR2", last_cr2, gva);
	}
}

#define USER(name, code, gva, vector, error) check_user(name, code, code##_end, gva, vector, error)

static void begin(void)
{
	for (unsigned n = 0; n < 1024; n++)
		low[n] = n * PAGE_BYTES | PAGE_P | PAGE_W;
	for (unsigned n = 0; n < 3; n++)
		directory[(AT + n * 0x10000000u) >> 22] = at(table) | PAGE_P | PAGE_W | PAGE_U;
	directory[0] = at(low) | PAGE_P | PAGE_W | PAGE_U;
	directory[1023] = at(top) | PAGE_P | PAGE_W | PAGE_U;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3(at(directory));
	write_cr0(read_cr0() | CR0_PG);
}

static void small_pages(void)
{
	scratch[1][5] = 0x12345678;
	set_entry(AT, at(scratch[1]) | PAGE_P | PAGE_W);
	directory[AT >> 22] = at(table) | PAGE_P | PAGE_W | PAGE_U;
	write_cr3(read_cr3());
	check_equal("a page of 4 KiB", read32(AT + 20), 0x12345678);
	check_equal("a read sets A", *entry_of(table, AT) & (PAGE_A | PAGE_D), PAGE_A);
	check_equal("in the directory as well", directory[AT >> 22] & (PAGE_A | PAGE_D), PAGE_A);
	write32(AT + 24, 9);
	check_equal("a write goes to it", scratch[1][6], 9);
	check_equal("and sets D", *entry_of(table, AT) & (PAGE_A | PAGE_D), PAGE_A | PAGE_D);
	check_equal("in the page's entry alone", directory[AT >> 22] & PAGE_D, 0);
	scratch[2][5] = 0x5555;
	set_entry(AT, at(scratch[2]) | PAGE_P | PAGE_W);
	check_equal("another page behind it", read32(AT + 20), 0x5555);
	*entry_of(table, AT) = at(scratch[1]) | PAGE_P | PAGE_W;
	write_cr3(read_cr3());
	check_equal("and with a load of CR3", read32(AT + 20), 0x12345678);
}

static void large_pages(void)
{
	uint32_t here = at(scratch[3]) & ~(LARGE_BYTES - 1u);
	uint32_t gva = AT_LARGE + (at(scratch[3]) & (LARGE_BYTES - 1));

	scratch[3][1] = 0xabcd;
	set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE);
	check_equal("a page of 4 MiB", read32(gva + 4), 0xabcd);
	check_equal("a read sets A", directory[AT_LARGE >> 22] & (PAGE_A | PAGE_D), PAGE_A);
	write32(gva + 8, 3);
	check_equal("a write goes to it", scratch[3][2], 3);
	check_equal("and sets D", directory[AT_LARGE >> 22] & (PAGE_A | PAGE_D), PAGE_A | PAGE_D);
	set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE | RESERVED_21);
	check_fault("bit 21 of a large page is reserved", read_target, gva, CODE_P | CODE_RESERVED);
	check_fault("for a write", write_target, gva, CODE_P | CODE_W | CODE_RESERVED);
	set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE | ABOVE_4_GIB);
	check("bits 20:13 are the address above 4 GiB", read32(gva + 4) != 0xabcd);
	set_entry(AT_LARGE, at(scratch[4]) | PAGE_P | PAGE_W);
	scratch[4][0] = 0x4444;
	set_directory(AT_LARGE, at(table) | PAGE_P | PAGE_W | PAGE_LARGE);
	write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
	check_equal("without CR4.PSE it is a table", read32(AT_LARGE), 0x4444);
	write_cr4(read_cr4() | CR4_PSE);
	set_directory(AT_LARGE, at(table) | PAGE_P | PAGE_W | PAGE_U);
	set_entry(AT_LARGE, at(scratch[4]) | PAGE_P | PAGE_W | PAGE_LARGE);
	check_equal("bit 7 of a table's entry is no size", read32(AT_LARGE), 0x4444);
}

static void absent_pages(void)
{
	set_entry(AT, at(scratch[1]) | PAGE_W);
	check_fault("a page that is not present", read_target, AT, 0);
	check_fault("to write", write_target, AT, CODE_W);
	check_fault("to execute: nothing tells that", call_target, AT, 0);
	set_directory(AT, at(table) | PAGE_W);
	check_fault("nor a table", read_target, AT + 8, 0);
	set_directory(AT, at(table) | PAGE_P | PAGE_W | PAGE_U);
	set_entry(AT, at(scratch[1]) | PAGE_P | PAGE_W);
	set_entry(AT + PAGE_BYTES, 0);
	scratch[1][1023] = 0x1111;
	target = AT + PAGE_BYTES - 2;
	check_equal("a write into the next, which is absent", (uint32_t)try_code(write_target), PF);
	check_equal("CR2 is the next's", last_cr2, AT + PAGE_BYTES);
	check_equal("nothing is written", scratch[1][1023], 0x1111);
}

/* Each a right of the directory and one of the table; both must have it. */
static void users(void)
{
	set_entry(AT_USER, at(scratch[0]) | PAGE_P | PAGE_W | PAGE_U);
	set_entry(AT + 0x10000, at(scratch[5]) | PAGE_P | PAGE_W | PAGE_U);
	USER("a user reads", user_read, AT + 0x10000, DONE, 0);
	USER("and writes", user_write, AT + 0x10000, DONE, 0);
	set_entry(AT + 0x10000, at(scratch[5]) | PAGE_P | PAGE_W);
	USER("no page of the kernel", user_read, AT + 0x10000, PF, CODE_P | CODE_U);
	set_entry(AT + 0x10000, at(scratch[5]) | PAGE_P | PAGE_U);
	USER("reads what is read only", user_read, AT + 0x10000, DONE, 0);
	USER("does not write it", user_write, AT + 0x10000, PF, CODE_P | CODE_W | CODE_U);
	set_entry(AT + 0x10000, at(scratch[5]) | PAGE_P | PAGE_W | PAGE_U);
	set_directory(AT, at(table) | PAGE_P | PAGE_W);
	USER("nor in a table of the kernel", user_read, AT + 0x10000, PF, CODE_P | CODE_U);
	set_directory(AT, at(table) | PAGE_P | PAGE_U);
	USER("or a read-only table", user_write, AT + 0x10000, PF, CODE_P | CODE_W | CODE_U);
	set_directory(AT, at(table) | PAGE_P | PAGE_W | PAGE_U);
	USER("or what is absent", user_read, AT + PAGE_BYTES, PF, CODE_U);
}

static void write_protection(void)
{
	set_entry(AT, at(scratch[6]) | PAGE_P);
	write_cr0(read_cr0() & ~(uint32_t)CR0_WP);
	check_none("without WP the kernel writes what is read only", write_target, AT);
	check_equal("there", scratch[6][0], 0x77);
	check_equal("and D is set", *entry_of(table, AT) & PAGE_D, PAGE_D);
	write_cr0(read_cr0() | CR0_WP);
	check_fault("with WP it does not", write_target, AT, CODE_P | CODE_W);
	set_entry(AT, at(scratch[6]) | PAGE_P | PAGE_W);
	set_directory(AT, at(table) | PAGE_P | PAGE_U);
	check_fault("nor by the directory", write_target, AT, CODE_P | CODE_W);
	check_equal("which is read", read32(AT), 0x77);
	check_equal("what faults sets no D", *entry_of(table, AT) & PAGE_D, 0);
	write_cr0(read_cr0() & ~(uint32_t)CR0_WP);
	check_none("without WP again", write_target, AT);
	set_directory(AT, at(table) | PAGE_P | PAGE_W | PAGE_U);
}

/* SMEP and SMAP are not of long mode alone. */
static void supervisor_only(void)
{
	enum { RET = 0xc3 };

	*(volatile uint8_t *)scratch[7] = RET;
	set_entry(AT, at(scratch[7]) | PAGE_P | PAGE_W | PAGE_U);
	check_none("the kernel executes a user's page", call_target, AT);
	write_cr4(read_cr4() | CR4_SMEP);
	check_fault("with SMEP it does not", call_target, AT, CODE_P | CODE_FETCH);
	write_cr4((read_cr4() & ~(uint32_t)CR4_SMEP) | CR4_SMAP);
	check_fault("with SMAP it reads none", read_target, AT, CODE_P);
	__asm__ volatile("stac");
	check_equal("but with AC", read32(AT) & 0xff, RET);
	__asm__ volatile("clac");
	write_cr4(read_cr4() & ~(uint32_t)CR4_SMAP);
}

/* Addresses have 32 bits. (An offset of 0xffffffff may fault: SDM Vol. 3A 5.3. So by a base.) */
static uint32_t read_end(void)
{
	uint32_t value;

	__asm__ volatile("movl %%fs:0xffe, %0" : "=r"(value) : : "memory");
	return value;
}

static void around_the_end(void)
{
	*entry_of(top, TOP) = at(scratch[8]) | PAGE_P | PAGE_W;
	*entry_of(low, 0) = at(scratch[9]) | PAGE_P | PAGE_W;
	write_cr3(read_cr3());
	set_descriptor(FREE,
		       descriptor(TOP, 0xfffff, SEGMENT_G | SEGMENT_D | SEGMENT_P | DATA_KIND));
	__asm__ volatile("mov %0, %%fs" : : "r"(FREE));
	scratch[8][1023] = 0x22110000;
	scratch[9][0] = 0x4433;
	check_equal("what is at the end goes on at 0", read_end(), 0x44332211);
	__asm__ volatile("movl %0, %%fs:0xffe" : : "r"(0x88776655) : "memory");
	check_equal("and is written so", scratch[8][1023], 0x66550000);
	check_equal("at both ends", scratch[9][0], 0x8877);
}

static void without(void)
{
	write_cr0(read_cr0() & ~CR0_PG);
	check_equal("without paging an address is what it says", read32(at(&scratch[1][5])),
		    0x12345678);
	write_cr0(read_cr0() | CR0_PG);
	set_entry(AT, at(scratch[1]) | PAGE_P | PAGE_W);
	check_equal("and with it again", read32(AT + 20), 0x12345678);
}

void test_main(void)
{
	begin();
	small_pages();
	large_pages();
	absent_pages();
	users();
	write_protection();
	supervisor_only();
	around_the_end();
	without();
}
