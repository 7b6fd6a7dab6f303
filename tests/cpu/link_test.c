/*
 * A block that is executed while its page gives its code up still jumps to others of the page, and
 * what it has written there since is what is executed.
 *
 *   user code   FIRST: compare; write [rdi]; write [rsi]; jump to SECOND
 *               SECOND: read [rbx]; mov al, BEFORE; by the flags over mov al, 0; hlt, which faults
 *
 * Once more without the first jump: FIRST then goes on into SECOND, and is one block with it. And
 * with the comparison behind the writes: its flags come to SECOND as they are, which saves them.
 *
 * The jump has become a link, the flags are kept in memory. [rdi] is then the write with which the
 * page becomes data: all its blocks die, FIRST, which is executed, before SECOND. [rsi] is the
 * value in SECOND, which nobody intercepts any more.
 */
#include "bare_guest.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	SECOND = 0x40, /* in the page of the code */
	VALUE = SECOND + 4,
	PLAIN = 0x800,
	DATA = 0x200000,
	OTHER = 0x280000,
	BEFORE = 0x11,
	AFTER = 0x22,
	FLAGS_NONE = 2,
	WRITES_UNTIL_DATA = 64 /* code/invalidate.c */
};

enum form { BY_WORD, ONE_BLOCK, BY_FLAGS, FORMS };

static void make_code(enum form form)
{
	static const uint8_t first[] = {
		0x39, 0xc0,              /* cmp eax, eax */
		0x88, 0x17,              /* mov [rdi], dl */
		0x88, 0x16,              /* mov [rsi], dl */
		0xeb, SECOND - 8,        /* jmp to the second */
	};
	static const uint8_t by_flags[] = {
		0x88, 0x17, 0x88, 0x16, 0x39, 0xc0, 0xeb, SECOND - 8,
	};
	static const uint8_t second[] = {
		0x48, 0x8b, 0x0b,        /* mov rcx, [rbx] */
		0xb0, BEFORE,            /* mov al, BEFORE */
		0x74, 2,                 /* jz behind it: */
		0xb0, 0,                 /* mov al, 0 */
		0xf4,                    /* hlt */
	};
	static const uint8_t nop[] = { 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 };
	const unsigned jump_bytes = form == ONE_BLOCK ? 2 : 0;

	memset(ram + CODE, 0x90, SECOND);
	for (unsigned at = sizeof(first); at + sizeof(nop) <= SECOND; at += sizeof(nop))
		memcpy(ram + CODE + at, nop, sizeof(nop));
	memcpy(ram + CODE, form == BY_FLAGS ? by_flags : first, sizeof(first) - jump_bytes);
	memcpy(ram + CODE + SECOND, second, sizeof(second));
}

/* What is in AL in the end. */
static uint8_t run(struct engine_cpu *cpu, uint64_t rip, uint64_t rdi, uint64_t rsi)
{
	struct engine_state state = { .nmi_pending = false };

	begin_user_long_mode(&state.x86, TABLES);
	state.x86.rip = rip;
	state.x86.rflags = FLAGS_NONE | (rip == CODE ? 0 : FLAG_ZF);
	state.x86.gpr[2] = AFTER;
	state.x86.gpr[3] = DATA;
	state.x86.gpr[6] = rsi;
	state.x86.gpr[7] = rdi;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(cpu) != ENGINE_EXIT_SHUTDOWN)
		abort();
	engine_get(cpu, ENGINE_GENERAL, &state);
	return (uint8_t)state.x86.gpr[0];
}

static void test(struct engine *engine, struct engine_cpu *cpu)
{
	const struct soft_cpu *soft = (const struct soft_cpu *)cpu;
	bool as_before = run(cpu, CODE + SECOND, 0, 0) == BEFORE;
	uint64_t links;

	as_before &= run(cpu, CODE, DATA, OTHER) == BEFORE;
	links = soft->chains;
	as_before &= run(cpu, CODE, DATA, OTHER) == BEFORE;
	expect(as_before && links && soft->chains == links, "the jump is a link");
	for (unsigned n = 1; n < WRITES_UNTIL_DATA; n++)
		engine_memory_written(engine, CODE + PLAIN, 1);
	expect(soft->engine->page_blocks[soft_frame(soft->engine, ram + CODE)] &&
		       !soft->engine->counts.made_again[END_WRITTEN],
	       "the page has its code until the next write");
	expect(run(cpu, CODE, CODE + PLAIN, CODE + VALUE) == AFTER,
	       "what was written is executed, by who was in the page as well");
}

int main(void)
{
	make_ram(RAM_BYTES);
	for (enum form form = 0; form < FORMS; form++) {
		struct guest guest;

		make_code(form);
		guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, 0);
		test(guest.engine, guest.cpu);
		end(guest);
	}
	return failures != 0;
}
