/*
 * The border of canonical addresses, 2^47: jumps across it fault where they are, by kernel code and
 * by a user's, which is executed at another address before; what falls off the last page faults at
 * its target; accesses across it are #SS by the stack, #GP otherwise.
 */
#include "guest.h"

#define BORDER 0x800000000000ull
#define LAST (BORDER - PAGE_BYTES)
/* The same page through the first entry of the root, where what is behind it is canonical. */
#define ALIAS (LAST & 0x7fffffffffull)
enum { KERNEL_CODE = 8, USER_CODE = 0x33, STACK = 12, GENERAL = 13, PAGE_FAULT = 14 };
enum { JUMP_AT = 0xf80, STACK_AT = 0x800, COUNT = 5 };

extern uint64_t page_tables[];

/* Begins with RSP at STACK_AT in its page; the jump stands jump bytes behind the begin. */
struct jump { const char *name; uint8_t code[24], bytes, jump; };

/* XOR EAX, EAX; then a jump whose displacement leads about 0x100 bytes on. */
static const struct jump jumps[] = {
	{ .name = "JMP", .code = { 0x31, 0xc0, 0xe9, 0, 1, 0, 0 }, .bytes = 7, .jump = 2 },
	{ .name = "JMP SHORT", .code = { 0x31, 0xc0, 0xeb, 0x7f }, .bytes = 4, .jump = 2 },
	{ .name = "JZ", .code = { 0x31, 0xc0, 0x0f, 0x84, 0, 1, 0, 0 }, .bytes = 8, .jump = 2 },
	{ .name = "JZ SHORT", .code = { 0x31, 0xc0, 0x74, 0x7f }, .bytes = 4, .jump = 2 },
	{ .name = "CALL", .code = { 0x31, 0xc0, 0xe8, 0, 1, 0, 0 }, .bytes = 7, .jump = 2 },
	{ .name = "LOOP", .code = { 0x31, 0xc0, 0xb1, COUNT, 0xe2, 0x7f }, .bytes = 6, .jump = 4 },
	{ .name = "LOOPE", .code = { 0x31, 0xc0, 0xb1, COUNT, 0xe1, 0x7f }, .bytes = 6, .jump = 4 },
	{ .name = "JRCXZ", .code = { 0x31, 0xc9, 0xe3, 0x7f }, .bytes = 4, .jump = 2 },
	/* PUSH, MOV RAX, [RSP] before and behind: one lookup for all, but for the jump */
	{ .name = "JZ among accesses",
	  .code = { 0x50, 0x31, 0xc0, 0x0f, 0x84, 0, 1, 0, 0, 0x48, 0x8b, 4, 0x24, 0x50 },
	  .bytes = 14,
	  .jump = 3 },
};

static void put(uint64_t gva, const uint8_t *code, unsigned bytes)
{
	put_code(gva, code, code + bytes);
}

static void jump_across(const struct jump *jump, uint64_t page, uint64_t selector)
{
	const uint64_t at = page + JUMP_AT;
	uint64_t stack = page + STACK_AT;
	int64_t vector;

	vector = try_user((void (*)(void))at, stack, selector);
	if (page != LAST) {
		check_equal("where its target is canonical it faults there", (uint64_t)vector,
			    PAGE_FAULT);
		return;
	}
	check_equal(jump->name, (uint64_t)vector, GENERAL);
	check_equal("where it is", last.rip, at + jump->jump);
	check_equal("with 0", last.code, 0);
	stack -= jump->code[0] == 0x50 ? sizeof(uint64_t) : 0;
	check_equal("its stack is as before", last.rsp, stack);
	if (jump->code[2] == 0xb1)
		check_equal("and so is its counter", last.rcx & 0xff, COUNT);
}

static void jumps_across(void)
{
	for (unsigned n = 0; n < sizeof(jumps) / sizeof(*jumps); n++) {
		put(ALIAS + JUMP_AT, jumps[n].code, jumps[n].bytes);
		jump_across(&jumps[n], ALIAS, USER_CODE);
		jump_across(&jumps[n], LAST, USER_CODE);
		jump_across(&jumps[n], LAST, KERNEL_CODE);
	}
}

/* A call by a register, and by memory: nothing is pushed before it faults. */
static void call_across(const char *name, const uint8_t *code, unsigned bytes, uint64_t selector)
{
	enum { CALL_BYTES = 10, UNTOUCHED = 0x5151 };
	volatile uint64_t *stack = (volatile uint64_t *)(ALIAS + STACK_AT);

	put(ALIAS + JUMP_AT, code, bytes);
	stack[-1] = UNTOUCHED;
	stack[0] = BORDER;
	check_equal(name,
		    (uint64_t)try_user((void (*)(void))(LAST + JUMP_AT), LAST + STACK_AT, selector),
		    GENERAL);
	check_equal("where it is", last.rip, LAST + JUMP_AT + CALL_BYTES);
	check_equal("its stack is as before", last.rsp, LAST + STACK_AT);
	check_equal("also below it", stack[-1], UNTOUCHED);
}

static void calls_across(uint64_t selector)
{
	static const uint8_t by_register[] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0, 0, 0xff, 0xd0 };
	static const uint8_t by_memory[] = {
		0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0, 0, 0xff, 0x14, 0x24
	};

	call_across("CALL by a register", by_register, sizeof(by_register), selector);
	call_across("CALL by memory", by_memory, sizeof(by_memory), selector);
}

/* One that is not taken, and then nothing more: the end of the page. */
static void falls_off(uint64_t selector)
{
	static const uint8_t code[] = { 0x31, 0xc0, 0x0f, 0x85, 0, 1, 0, 0 };

	put(ALIAS + PAGE_BYTES - sizeof(code), code, sizeof(code));
	check_equal("code that goes on beyond the last page",
		    (uint64_t)try_user((void (*)(void))(BORDER - sizeof(code)), LAST + STACK_AT,
				       selector),
		    GENERAL);
	check_equal("faults there", last.rip, BORDER);
}

/* Each with RSP and RBP four bytes before the border; then INT 80H. */
struct access { const char *name; uint8_t bytes, code[8], vector; };

static const struct access accesses[] = {
	{ .name = "PUSH", .bytes = 5, .code = { 0x48, 0x83, 0xc4, 8, 0x50 }, .vector = STACK },
	{ .name = "POP", .bytes = 1, .code = { 0x58 }, .vector = STACK },
	{ .name = "MOV by RSP", .bytes = 4, .code = { 0x48, 0x8b, 4, 0x24 }, .vector = STACK },
	{ .name = "ADD by RBP", .bytes = 4, .code = { 0x48, 1, 0x45, 0 }, .vector = STACK },
	{ .name = "RET", .bytes = 1, .code = { 0xc3 }, .vector = STACK },
	{ .name = "PUSH FS",
	  .bytes = 6,
	  .code = { 0x48, 0x83, 0xc4, 8, 0x0f, 0xa0 },
	  .vector = STACK },
	{ .name = "POP FS", .bytes = 2, .code = { 0x0f, 0xa1 }, .vector = STACK },
	{ .name = "POPF", .bytes = 1, .code = { 0x9d }, .vector = STACK },
	{ .name = "IRETQ", .bytes = 2, .code = { 0x48, 0xcf }, .vector = STACK },
	{ .name = "ENTER",
	  .bytes = 8,
	  .code = { 0x48, 0x83, 0xc4, 8, 0xc8, 0, 0, 0 },
	  .vector = STACK },
	{ .name = "SGDT by RSP", .bytes = 4, .code = { 0x0f, 1, 4, 0x24 }, .vector = STACK },
	{ .name = "FNSTENV by RBP", .bytes = 3, .code = { 0xd9, 0x75, 0 }, .vector = STACK },
	{ .name = "MOV by RDI", .bytes = 3, .code = { 0x48, 0x8b, 7 }, .vector = GENERAL },
	{ .name = "SGDT by RDI", .bytes = 3, .code = { 0x0f, 1, 7 }, .vector = GENERAL },
	{ .name = "four bytes before it", .bytes = 3, .code = { 0x8b, 4, 0x24 }, .vector = 0x80 },
};

static void access_across(const struct access *access, uint64_t selector)
{
	static const uint8_t begin[] = { 0x48, 0xbf, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0,
					 0x48, 0x89, 0xfc, 0x48, 0x89, 0xfd };
	static const uint8_t end[] = { 0xcd, 0x80 };

	put(ALIAS, begin, sizeof(begin));
	put(ALIAS + sizeof(begin), access->code, access->bytes);
	put(ALIAS + sizeof(begin) + access->bytes, end, sizeof(end));
	check_equal(access->name,
		    (uint64_t)try_user((void (*)(void))LAST, LAST + STACK_AT, selector),
		    (uint64_t)access->vector);
	check_equal("whose code is 0", last.code, 0);
}

void test_main(void)
{
	map_page(ALIAS, (uint64_t)new_page(), PAGE_P | PAGE_W | PAGE_U);
	page_tables[LAST >> 39] = page_tables[0];
	use_trap_stack(STACK);
	use_trap_stack(GENERAL);
	jumps_across();
	calls_across(USER_CODE);
	calls_across(KERNEL_CODE);
	falls_off(USER_CODE);
	falls_off(KERNEL_CODE);
	for (unsigned n = 0; n < sizeof(accesses) / sizeof(*accesses); n++) {
		if (accesses[n].code[0] != 0x0f || accesses[n].code[1] != 1)
			access_across(&accesses[n], USER_CODE);
		access_across(&accesses[n], KERNEL_CODE);
	}
}
