/* Code that changes, straddles pages, is stepped through; shadows of STI and MOV SS. */
#include "guest.h"

#define AT 0x8000000000ull

static uint8_t *code; /* two pages at AT */

static void put(unsigned at, const char *bytes, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		((volatile uint8_t *)AT)[at + n] = (uint8_t)bytes[n];
}

static uint64_t run(unsigned at) { return ((uint64_t (*)(void))(AT + at))(); }

static void self_modifying(void)
{
	put(0, "\xb8\x01\x00\x00\x00\xc3", 6);
	check_equal("runs", run(0), 1);
	put(1, "\x02", 1);
	check_equal("changed code", run(0), 2);
	/*
	 * movb $5, the immediate of the next instruction; mov $0, eax: changed in front of its own
	 * feet
	 */
	put(64, "\xc6\x05\x01\x00\x00\x00\x05\xb8\x00\x00\x00\x00\xc3", 13);
	check_equal("changes the next instruction", run(64), 5);
	for (unsigned n = 0; n < 1000; n++) {
		char byte = (char)n;

		put(1, &byte, 1);
		if (run(0) != (n & 0xff)) {
			check_equal("a thousand changes", n, 1000);
			return;
		}
	}
	check("a thousand changes", true);
}

static void straddling(void)
{
	uint8_t *other = new_page();

	put(4094, "\xb8\x07\x00\x00\x00\xc3", 6);
	check_equal("an instruction on two pages", run(4094), 7);
	put(PAGE_BYTES, "\x09", 1);
	check_equal("its second half changed", run(4094), 0x907);
	other[0] = 3, other[3] = 0xc3;
	map_page(AT + PAGE_BYTES, (uint64_t)other, PAGE_P | PAGE_W);
	check_equal("its second page remapped", run(4094), 0x307);
	map_page(AT + PAGE_BYTES, 0, 0);
	check_equal("its second page gone", (uint64_t)try_code((void (*)(void *))(AT + 4094), NULL),
		    14);
	check_equal("CR2 is the second page", last_cr2, AT + PAGE_BYTES);
	check_equal("the return address is the first", last.rip, AT + 4094);
	map_page(AT + PAGE_BYTES, (uint64_t)code + PAGE_BYTES, PAGE_P | PAGE_W);
}

static unsigned steps;
static uint64_t first_step, last_step;

static bool count_steps(struct frame *frame)
{
	if (frame->vector != 1)
		return false;
	if (!steps++)
		first_step = frame->rip;
	last_step = frame->rip;
	return true;
}

static void single_step(void)
{
	uint64_t start, dr6;

	on_trap = count_steps;
	__asm__ volatile(
		"lea 1f(%%rip), %0; pushfq; orl $0x100, (%%rsp); popfq; 1: nop; inc %%rax; jmp "
		"2f; nop; 2: nop; pushfq; andl $~0x100, (%%rsp); popfq"
		: "=r"(start)
		:
		: "rax", "memory");
	on_trap = NULL;
	check_equal("steps", steps, 7);
	check_equal("the first trap is behind one instruction", first_step, start + 1);
	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	check_equal("DR6.BS", dr6 & 0x4000, 0x4000);
	steps = 0;
	on_trap = count_steps;
	/* a trap that is due behind MOV SS waits for the next instruction */
	__asm__ volatile(
		"mov %%ss, %%ecx; pushfq; orl $0x100, (%%rsp); popfq; mov %%ecx, %%ss; nop; nop; "
		"pushfq; andl $~0x100, (%%rsp); popfq"
		:
		:
		: "rcx", "memory");
	on_trap = NULL;
	check_equal("MOV SS swallows one step", steps, 5);
}

static unsigned hits;
static uint64_t hit_rip;
static bool count_hits(struct frame *frame)
{
	if (frame->vector != 1)
		return false;
	hits++;
	hit_rip = frame->rip;
	frame->rflags |= 0x10000; /* RF: past it */
	return true;
}

static void breakpoints(void)
{
	uint64_t at, dr6, dr7 = 0x400;
	static volatile uint64_t watched;

	__asm__ volatile("lea 1f(%%rip), %0; jmp 2f; 1: nop; ret; 2:" : "=r"(at));
	on_trap = count_hits;
	__asm__ volatile("mov %0, %%dr6; mov %1, %%dr0; mov %2, %%dr7"
			 :
			 : "r"(0xffff0ff0ull), "r"(at), "r"(dr7 | 2));
	((void (*)(void))at)();
	check_equal("an execution breakpoint", hits, 1);
	check_equal("is a fault", hit_rip, at);
	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	check_equal("DR6.B0", dr6 & 15, 1);
	hits = 0;
	__asm__ volatile("mov %0, %%dr6; mov %1, %%dr1; mov %2, %%dr7"
			 :
			 : "r"(0xffff0ff0ull), "r"(&watched), "r"(dr7 | 8 | 0xd00000));
	watched = 5;
	__asm__ volatile("nop");
	(void)watched;
	__asm__ volatile("mov %0, %%dr7" : : "r"(dr7));
	check_equal("a write watchpoint", hits, 1);
	watched = 6;
	on_trap = NULL;
	check_equal("off again", hits, 1);
}

/*
 * One frame at several addresses of user code: lea rax, [rip + 16]; call to the next; pop rbx;
 * test al, al; jnz into another block; mov rcx, [rip - 7]; an undefined instruction at 40
 */
static void at_several_addresses(void)
{
	enum { USER_CODE = 0x33, PLACES = 3, AFTER_CALL = 12, UNDEFINED = 40, BEHIND_LEA = 7 };
	static const uint64_t places[PLACES] = { 0x8000100000, 0x8000237000, 0x8000004000 };
	static const uint8_t user[] = { 0x48, 0x8d, 0x05, 0x10, 0,    0,    0,    0xe8, 0,
					0,    0,    0,    0x5b, 0x84, 0xc0, 0x75, 0x03 };
	static const uint8_t rest[] = { 0x48, 0x8b, 0x0d, 0xf9, 0xff, 0xff, 0xff };
	uint8_t *page = new_page();
	uint8_t *stack = new_page();
	bool good = true;

	for (unsigned n = 0; n < sizeof(user); n++)
		page[n] = user[n];
	for (unsigned n = 0; n < sizeof(rest); n++)
		page[20 + n] = rest[n];
	page[27] = 0xeb, page[28] = UNDEFINED - 29;
	page[UNDEFINED] = 0x0f, page[UNDEFINED + 1] = 0x0b;
	map_page(0x8000300000, (uint64_t)stack, PAGE_P | PAGE_W | PAGE_U);
	for (unsigned n = 0; n < PLACES; n++)
		map_page(places[n], (uint64_t)page, PAGE_P | PAGE_U);
	for (unsigned n = 0; n < 20 * PLACES; n++) {
		uint64_t at = places[n % PLACES];

		/* another displacement, by another address */
		page[3] = (uint8_t)(16 + n);
		good &= try_user((void (*)(void))at, 0x8000300800, USER_CODE) == 6;
		good &= last.rip == at + UNDEFINED && last.rbx == at + AFTER_CALL;
		good &= last.rax == at + BEHIND_LEA + 16 + n;
		good &= last.rcx == *(const uint64_t *)(const void *)(page + 20);
	}
	check("user code of one frame at several addresses", good);
}

/*
 * A jump that straddles two pages of user code is tied to its address; what it leads to is not, and
 * must learn where it is each time: mov ecx, 3; jmp to the jump; there lea rax, [rip]; dec ecx;
 * jz; jmp back; an undefined instruction.
 */
static void from_a_straddler(void)
{
	enum { USER_CODE = 0x33, BEGIN = 0xfe0, JUMP = 0xffd, DISTANCE = 0x10000, UNDEFINED = 16 };
	static const uint8_t begin[] = { 0xb9, 3, 0, 0, 0, 0xeb, 0x16 };
	static const uint8_t jump[] = { 0xe9, 0xfe, 0xef, 0, 0 };
	static const uint8_t target[] = { 0x48, 0x8d, 0x05, 0,    0,    0,    0,    0xff, 0xc9,
					  0x74, 0x05, 0xe9, 0xd5, 0x0f, 0xff, 0xff, 0x0f, 0x0b };
	const uint64_t at = 0x8000500000;
	uint8_t *pages[2] = { new_page(), new_page() };
	uint8_t *elsewhere = new_page();
	bool good = true;

	for (unsigned n = 0; n < sizeof(begin); n++)
		pages[0][BEGIN + n] = begin[n];
	for (unsigned n = 0; n < sizeof(jump); n++)
		pages[(JUMP + n) / PAGE_BYTES][(JUMP + n) % PAGE_BYTES] = jump[n];
	for (unsigned n = 0; n < sizeof(target); n++)
		elsewhere[n] = target[n];
	map_page(at, (uint64_t)pages[0], PAGE_P | PAGE_U);
	map_page(at + PAGE_BYTES, (uint64_t)pages[1], PAGE_P | PAGE_U);
	map_page(at + DISTANCE, (uint64_t)elsewhere, PAGE_P | PAGE_U);
	for (unsigned n = 0; n < 20; n++) {
		good &= try_user((void (*)(void))(at + BEGIN), 0x8000300800, USER_CODE) == 6;
		good &= last.rip == at + DISTANCE + UNDEFINED && last.rax == at + DISTANCE + 7;
	}
	check("user code that a straddler leads to", good);
}

/*
 * An entry of a page table that is executed: 03 C1 C3 is ADD EAX, ECX; RET, and a page at 0xc3c000
 * that is writable and global. A walk sets the accessed bit: AND; one for a write the dirty bit:
 * MOVSXD.
 */
static void used_entries(void)
{
	enum { AS_CODE = 0xc3c103 };
	const uint64_t at = 0x7200000000;
	uint64_t *entry = map_page(at, AS_CODE & ~(uint64_t)PAGE_OFFSET, PAGE_P | PAGE_W);
	uint32_t result[3];

	*entry = AS_CODE;
	for (unsigned n = 0; n < 3; n++) {
		if (n == 1)
			(void)*(volatile uint8_t *)at;
		if (n == 2)
			*(volatile uint8_t *)at = 0;
		__asm__ volatile("call *%1" : "=a"(result[n]) : "r"(entry), "a"(1), "c"(6));
	}
	check_equal("a page table's entry as code", result[0], 7);
	check_equal("is other code when it is accessed", result[1], 0);
	check_equal("and when it is written through", result[2], 6);
}

void test_main(void)
{
	used_entries();
	code = new_page();
	new_page();
	map_page(AT, (uint64_t)code, PAGE_P | PAGE_W);
	map_page(AT + PAGE_BYTES, (uint64_t)code + PAGE_BYTES, PAGE_P | PAGE_W);
	self_modifying();
	straddling();
	at_several_addresses();
	from_a_straddler();
	single_step();
	breakpoints();
}
