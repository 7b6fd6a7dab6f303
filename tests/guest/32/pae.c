/*
 * PAE paging: the four entries that a load of CR3 keeps, their reserved bits, pages of 4 KiB and
 * 2 MiB, NX, reserved bits of entries, rights, accessed and dirty flags; a task's CR3.
 */
#include "page_fault.h"

enum { LARGE_BYTES = 2 << 20, SCRATCH = 32, SEEN = 0x1717, OTHER_SEEN = 0x2828 };
enum {
	AT = 0x40000000,
	AT_LARGE = 0x40200000,
	AT_USER = 0x40400000,
	MSR_EFER = 0xc0000080u,
	EFER_NXE = 0x800
};
enum { SWITCH_FROM = FREE, SWITCH_TO = FREE + 8 };
#define NX (1ull << 63)

/* Roots are 32 bytes, wherever they are; the second one is what a test changes. */
static volatile uint64_t roots[512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t low_directory[512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t directory[512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t other_directory[512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t table[3][512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t other_table[512] __attribute__((aligned(PAGE_BYTES)));
static volatile uint32_t scratch[SCRATCH][1024] __attribute__((aligned(PAGE_BYTES)));
static volatile uint64_t *const root = roots + 4; /* at 0x20 in its page */
static volatile uint64_t *const other_root = roots + 16;

static volatile uint64_t *entry_of(uint32_t gva) { return &table[gva >> 21 & 1][gva >> 12 & 511]; }

static void set_entry(uint32_t gva, uint64_t entry)
{
	*entry_of(gva) = entry;
	invlpg(gva);
}

static void set_directory(uint32_t gva, uint64_t entry)
{
	directory[gva >> 21 & 511] = entry;
	invlpg(gva);
}

static void load_root(void) { write_cr3(target); }

static void fill_tables(void)
{
	for (unsigned n = 0; n < 512; n++)
		low_directory[n] = (uint64_t)n * LARGE_BYTES | PAGE_P | PAGE_W | PAGE_LARGE;
	directory[0] = at(table[0]) | PAGE_P | PAGE_W | PAGE_U;
	directory[1] = at(table[1]) | PAGE_P | PAGE_W | PAGE_U;
	directory[2] = at(table[2]) | PAGE_P | PAGE_W | PAGE_U;
	other_directory[0] = at(other_table) | PAGE_P | PAGE_W | PAGE_U;
	other_table[0] = at(scratch[1]) | PAGE_P | PAGE_W;
	table[0][0] = at(scratch[0]) | PAGE_P | PAGE_W;
	scratch[0][0] = SEEN;
	scratch[1][0] = OTHER_SEEN;
	root[0] = other_root[0] = at(low_directory) | PAGE_P;
	root[1] = at(directory) | PAGE_P;
	root[2] = ~1ull; /* not present: nothing in it counts */
	other_root[1] = at(other_directory) | PAGE_P;
}

static void enable_paging(void) { write_cr0(read_cr0() | CR0_PG); }
static void toggle_pge(void) { write_cr4(read_cr4() ^ CR4_PGE); }
static void disable_cache(void) { write_cr0(read_cr0() ^ 0x40000000); }

static void begin(void)
{
	fill_tables();
	write_cr4(read_cr4() | CR4_PAE);
	write_cr3(at(root));
	root[1] |= 2;
	check_equal("paging is not turned on by a root with a reserved bit",
		    (uint32_t)try_code(enable_paging), GP);
	check_equal("and is off", read_cr0() & CR0_PG, 0);
	root[1] &= ~2ull;
	enable_paging();
	check_equal("a root within its page", read32(AT), SEEN);
}

static void check_root(const char *name, uint64_t bit)
{
	other_root[3] = at(directory) | PAGE_P | bit;
	target = at(other_root);
	check_equal(name, (uint32_t)try_code(load_root), GP);
	check_equal("its code", last.code, 0);
	check_equal("CR3 is as it was", read_cr3(), at(root));
	check_equal("and so are the roots", read32(AT), SEEN);
	other_root[3] = 0;
}

static void root_entries(void)
{
	check_root("bit 1 of a root's entry is reserved", 2);
	check_root("bit 2", 4);
	check_root("bit 5", 0x20);
	check_root("bit 8", 0x100);
	check_root("bit 63", NX);
	check_root("an address that is too large", 1ull << 51);
	root[1] = at(other_directory) | PAGE_P;
	invlpg(AT);
	check_equal("a root's entry is as it was loaded", read32(AT), SEEN);
	write_cr3(at(root));
	check_equal("until CR3 is loaded", read32(AT), OTHER_SEEN);
	root[1] = at(directory) | PAGE_P;
	toggle_pge();
	check_equal("or CR4.PGE changes", read32(AT), SEEN);
	root[1] = at(other_directory) | PAGE_P;
	disable_cache();
	check_equal("or CR0.CD does", read32(AT), OTHER_SEEN);
	disable_cache();
	root[1] |= 0x20;
	check_equal("CR4 does not change by a bad one", (uint32_t)try_code(toggle_pge), GP);
	check_equal("but goes on with what it has", read32(AT), OTHER_SEEN);
	check_equal("nor does CR0", (uint32_t)try_code(disable_cache), GP);
	root[1] = at(directory) | PAGE_P;
	write_cr3(at(other_root));
	check_equal("the other root", read32(AT), OTHER_SEEN);
	write_cr3(at(root));
	check_fault("a root's entry that is not present", read_target, 0x80000000, 0);
}

static void pages(void)
{
	uint32_t here = at(scratch[3]) & ~(LARGE_BYTES - 1u);
	uint32_t gva = AT_LARGE + (at(scratch[3]) & (LARGE_BYTES - 1));

	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W);
	check_equal("a page of 4 KiB", read32(AT), SEEN);
	check_equal("A without D", *entry_of(AT) & (PAGE_A | PAGE_D), PAGE_A);
	check_equal("A in the directory", directory[0] & PAGE_A, PAGE_A);
	check_equal("nothing in the root", root[1], at(directory) | PAGE_P);
	write32(AT, SEEN + 1);
	check_equal("D with a write", *entry_of(AT) & (PAGE_A | PAGE_D), PAGE_A | PAGE_D);
	scratch[3][1] = 0xabcd;
	set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE);
	check_equal("a page of 2 MiB", read32(gva + 4), 0xabcd);
	write32(gva + 8, 3);
	check_equal("which is written", scratch[3][2], 3);
	check_equal("A and D", directory[AT_LARGE >> 21 & 511] & (PAGE_A | PAGE_D),
		    PAGE_A | PAGE_D);
	write_cr4(read_cr4() | CR4_PSE);
	write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
	check_equal("and does not need CR4.PSE", read32(gva + 4), 0xabcd);
	for (unsigned bit = 13; bit <= 20; bit += 7) {
		set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE | 1u << bit);
		check_fault("bits 20:13 of a large page are reserved", read_target, gva,
			    CODE_P | CODE_RESERVED);
	}
	set_directory(AT_LARGE, here | PAGE_P | PAGE_W | PAGE_LARGE | 1ull << 62);
	check_fault("and bit 62 of any entry", read_target, gva, CODE_P | CODE_RESERVED);
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W | 1ull << 51);
	check_fault("an address that is too large", write_target, AT,
		    CODE_P | CODE_W | CODE_RESERVED);
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W);
}

static void rights(void)
{
	enum { RET = 0xc3 };

	write_cr0(read_cr0() | CR0_WP);
	set_entry(AT, at(scratch[0]) | PAGE_P);
	check_fault("read only", write_target, AT, CODE_P | CODE_W);
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_U);
	check_fault("by the directory", write_target, AT, CODE_P | CODE_W);
	write_cr0(read_cr0() & ~(uint32_t)CR0_WP);
	check_none("but without WP", write_target, AT);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_W | PAGE_U);

	*(volatile uint8_t *)scratch[4] = RET;
	set_entry(AT, at(scratch[4]) | PAGE_P | PAGE_W);
	check_none("a page is executed", call_target, AT);
	set_entry(AT, at(scratch[4]) | PAGE_P | PAGE_W | NX);
	check_fault("without NXE its bit is reserved", read_target, AT, CODE_P | CODE_RESERVED);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	check_fault("with it the page is not executed", call_target, AT, CODE_P | CODE_FETCH);
	check_none("but read", read_target, AT);
	set_entry(AT, at(scratch[4]) | PAGE_P | PAGE_W);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_W | PAGE_U | NX);
	check_fault("nor by the directory", call_target, AT, CODE_P | CODE_FETCH);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_W | PAGE_U);
	set_entry(AT, 0);
	check_fault("a fetch is told of", call_target, AT, CODE_FETCH);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
}

SNIPPET(32, user_read, "movl 0x40000000, %eax; int $0x80")
static void users(void)
{
	const uint32_t frame[] = { AT_USER, USER_CODE, 2, AT_USER + PAGE_BYTES, USER_DATA };

	copy(at(scratch[5]), user_read, user_read_end);
	table[2][0] = at(scratch[5]) | PAGE_P | PAGE_W | PAGE_U;
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W | PAGE_U);
	check_equal("a user reads", (uint32_t)try_iret(frame, 5), DONE);
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W);
	check_equal("no page of the kernel", (uint32_t)try_iret(frame, 5), PF);
	check_equal("its code", last.code, CODE_P | CODE_U);
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W | PAGE_U);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_W);
	check_equal("nor in a table of the kernel", (uint32_t)try_iret(frame, 5), PF);
	set_directory(AT, at(table[0]) | PAGE_P | PAGE_W | PAGE_U);
}

/* ---- a task brings its CR3 ---- */

static struct task other_task;
static uint8_t other_stack[PAGE_BYTES];
extern volatile uint32_t seen_by_task;
volatile uint32_t seen_by_task;
extern const uint8_t task_entry[];
__asm__("task_entry: movl 0x40000000, %eax; movl %eax, seen_by_task; ljmp $0x38, $0");
static void jump_to_task(void) { __asm__ volatile("ljmp $0x40, $0" : : : "memory"); }

static void ready_task(uint32_t cr3)
{
	other_task = (struct task){ .cr3 = cr3,
				    .eip = at(task_entry),
				    .eflags = 2,
				    .esp = at(other_stack) + PAGE_BYTES,
				    .cs = CODE,
				    .ss = DATA,
				    .ds = DATA,
				    .es = DATA,
				    .io_map = sizeof(other_task) };
	set_descriptor(FREE,
		       descriptor(at(&other_task), sizeof(other_task) - 1, SEGMENT_P | TASK_32));
	main_task.cr3 = at(root);
}

static void tasks(void)
{
	set_entry(AT, at(scratch[0]) | PAGE_P | PAGE_W);
	write32(AT, SEEN);
	ready_task(at(other_root));
	check_equal("a switch of tasks", (uint32_t)try_code(jump_to_task), (uint32_t)NONE);
	check_equal("loads the roots of its CR3", seen_by_task, OTHER_SEEN);
	check_equal("and back", read32(AT), SEEN);
	check_equal("CR3", read_cr3(), at(root));
	other_root[3] = at(directory) | PAGE_P | 2;
	ready_task(at(other_root));
	check_equal("one with a reserved bit", (uint32_t)try_code(jump_to_task), GP);
	check_equal("faults in the new task", last.eip, at(task_entry));
	check_equal("which goes on with the old root", read_cr3(), at(root));
}

void test_main(void)
{
	begin();
	root_entries();
	pages();
	rights();
	users();
	tasks();
}
