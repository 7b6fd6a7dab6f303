/*
 * What guests hardly ever do, each once done wrong: small programs at their own addresses, and
 * looks into the engine afterwards.
 *
 *   a store that crosses into the block that it stands in is seen by the rest of that block
 *   RET of a constant, across two pages, to an address that is not canonical faults at itself
 *   no page is filled ahead through an upper table that is not marked as accessed
 *   a store beside a watchpoint tells its frame as written
 *   a flush while a device is asked leaves the tables that the rest of the block looks up right
 *   a step of eight bits wraps within them: what is looked up for several accesses stops at it
 *   what a branch keeps from the frame beside a page is not there past that branch, either: the
 *     branches of the engine are taken out of hot code, as if they were predicted wrong for good
 *   a guest's address that is not canonical is #GP, whether the host tells its address (57 bits) or
 *     not (48); any other address is a fault of the engine's, which ends it
 *   past the branch of a lookup that found nothing no address of the host's that the guest names is
 *     read, written or jumped to; an engine without the secret in its entries is the control, which
 *     reads and writes there. So far the outcome is no processor's.
 */
#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/common.h"
#include "no_devices.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	RAM_BYTES = 4 << 20,
	PAGE = 1 << 12,
	TABLES = 0x10000, /* four levels; the last has 2 MiB */
	PAGE_TABLE = TABLES + 3 * PAGE,
	CODE = 0x100000,
	DATA = 0x180000,
	STACK = 0x1f0000,
	DEVICE = 0x1ff000, /* leads to no RAM */
	HLT = 0xf4,
	ENTRY_PRESENT = 7,
	ENTRY_ACCESSED = 0x20,
	RAX = 0,
	RCX,
	RDX,
	RBX,
	RSP,
	RSI = 6,
	RDI
};
#define DEVICE_GPA 0x80000000ull

static uint8_t *ram;
static struct guest_memory memory;
static struct engine *engine;
static struct engine_cpu *cpu;
static int failures;

static struct soft_cpu *soft(void) { return (struct soft_cpu *)cpu; }

static void expect(bool holds, const char *what)
{
	printf("%s: %s\n", holds ? "ok" : "FAIL", what);
	failures += !holds;
}

static void put64(uint64_t gpa, uint64_t value) { memcpy(ram + gpa, &value, 8); }

static uint64_t get64(uint64_t gpa)
{
	uint64_t value;

	memcpy(&value, ram + gpa, 8);
	return value;
}

static uint64_t entry_at(uint64_t gva) { return PAGE_TABLE + gva / PAGE * 8; }

static void make_tables(void)
{
	memset(ram + TABLES, 0, 4 * PAGE);
	for (unsigned level = 0; level < 3; level++)
		put64(TABLES + level * PAGE, (TABLES + (level + 1) * PAGE) | ENTRY_PRESENT);
	for (uint64_t gva = 0; gva < RAM_BYTES / 2; gva += PAGE)
		put64(entry_at(gva), gva | ENTRY_PRESENT);
	put64(entry_at(DEVICE), DEVICE_GPA | ENTRY_PRESENT);
}

/* Everything as after a reset into 64-bit mode; RIP is at the code. */
static void begin(void)
{
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *sector = &state.x86;

	make_tables();
	begin_flat_long_mode(sector, TABLES);
	sector->dr[7] = 0x400;
	sector->rip = CODE;
	sector->rflags = 2;
	sector->gpr[RSP] = STACK;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
}

static void put_code(uint64_t at, const uint8_t *code, size_t bytes)
{
	memcpy(ram + at, code, bytes);
	engine_memory_written(engine, at, bytes);
}

#define PUT_CODE(at, ...)                                                                          \
	put_code(at, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void set_gpr(unsigned reg, uint64_t value)
{
	struct engine_state state;

	engine_get(cpu, ENGINE_GENERAL, &state);
	state.x86.gpr[reg] = value;
	engine_set(cpu, ENGINE_GENERAL, &state);
}

static void set_rip(uint64_t rip)
{
	struct engine_state state;

	engine_get(cpu, ENGINE_GENERAL, &state);
	state.x86.rip = rip;
	engine_set(cpu, ENGINE_GENERAL, &state);
}

static struct x86_state run(enum engine_exit *ret_why)
{
	struct engine_state state;
	enum engine_exit why = engine_run(cpu);

	if (ret_why)
		*ret_why = why;
	engine_get(cpu, ENGINE_GENERAL, &state);
	return state.x86;
}

/* ---- the cases */

/*
 * At the begin of a page: movups [rsi], xmm0; mov eax, 1; hlt. What it stores begins with the byte
 * in front of the page, and has 2 for the 1.
 */
static void test_store_into_own_block(void)
{
	enum { SECOND = CODE + PAGE };
	static const uint8_t code[] = { 0x0f, 0x11, 0x06, 0xb8, 1, 0, 0, 0, HLT };
	static const uint8_t changed[16] = { 0x90, 0x0f, 0x11, 0x06, 0xb8, 2, 0, 0, 0, HLT };
	struct x86_state after;

	begin();
	/* the page before is another frame, without code */
	put64(entry_at(SECOND - PAGE), DATA | ENTRY_PRESENT);
	memcpy(ram + DATA + PAGE, changed, sizeof(changed));
	put_code(SECOND, code, sizeof(code));
	/* movups xmm0, [rdi]; jmp rcx */
	PUT_CODE(CODE + 2 * PAGE, 0x0f, 0x10, 0x07, 0xff, 0xe1);
	set_gpr(RDI, DATA + PAGE);
	set_gpr(RCX, SECOND);
	set_gpr(RSI, SECOND - 1);
	set_rip(CODE + 2 * PAGE);
	after = run(NULL);
	expect((uint32_t)after.gpr[RAX] == 2, "a store across a page into its own block");
}

/* RET 8 that ends in the next page, to an address that is not canonical. */
static void test_straddling_return(void)
{
	enum { AT = CODE + PAGE - 2 };
	enum engine_exit why;
	struct x86_state after;

	begin();
	PUT_CODE(AT, 0xc2, 8, 0);
	PUT_CODE(CODE, 0xe9, (AT - CODE - 5) & 0xff, (AT - CODE - 5) >> 8, 0, 0);
	put64(STACK, 1ull << 60);
	after = run(&why);
	expect(why == ENGINE_EXIT_SHUTDOWN && after.rip == AT && after.gpr[RSP] == STACK,
	       "RET of a constant across pages to an address that is not canonical");
}

/*
 * The guest's handler has mapped a page and one beside it, both marked as accessed; its directory
 * is not. What is accessed next must mark that.
 */
static void test_fill_ahead_unmarked(void)
{
	struct space_place at;
	const struct fault fault = { .vector = EXC_PF, .address = DATA };
	struct soft_cpu *cpu = soft();

	for (unsigned marked = 0; marked < 2; marked++) {
		begin();
		cpu->state.cpl = 3;
		soft_forget(cpu);
		for (unsigned n = 0; n < 2; n++)
			put64(entry_at(DATA + n * PAGE),
			      (DATA + n * PAGE) | ENTRY_PRESENT | ENTRY_ACCESSED);
		for (unsigned level = 0; level < 3; level++)
			put64(TABLES + level * PAGE,
			      get64(TABLES + level * PAGE) | (marked ? ENTRY_ACCESSED : 0));
		soft_note_fault(cpu, &fault);
		soft_fill_after_fault(cpu);
		at = space_enter(cpu->mmu, VIEW_USER);
		expect(space_has(at, DATA + PAGE, false) == marked,
		       marked ? "a page is filled ahead" : "no page ahead by an unmarked table");
		space_leave(at);
		cpu->state.cpl = 0;
	}
}

/* mov [rsi], eax in a page with a watchpoint elsewhere: no write entry, and yet a write. */
static void test_store_beside_watchpoint(void)
{
	enum { WRITES_4_BYTES = 0xd0400 | 2 };
	struct engine_state state;
	uint8_t *flags;

	begin();
	PUT_CODE(CODE, 0x89, 0x06, HLT);
	engine_get(cpu, ENGINE_DEBUG, &state);
	state.x86.dr[0] = DATA + 0x800;
	state.x86.dr[7] = WRITES_4_BYTES;
	engine_set(cpu, ENGINE_DEBUG, &state);
	set_gpr(RSI, DATA);
	flags = &soft()->engine->frame_flags[DATA / PAGE];
	*flags = 0;
	run(NULL);
	expect(*flags & FRAME_WRITTEN, "a store beside a watchpoint tells of its frame");
}

/* The page in front of DATA is another frame than the one in front of DATA's. */
static void put_apart(void)
{
	enum { APART = 0x1a0000 };

	put64(entry_at(DATA - PAGE), APART | ENTRY_PRESENT);
	memset(ram + APART, 0x55, PAGE);
	memset(ram + DATA - PAGE, 0xaa, PAGE);
	memset(ram + DATA, 0x11, PAGE);
}

/* mov rax, [rsp]; add spl, 0x7f; mov rbx, [rsp - 0x170] */
static void test_narrow_step_of_stack(void)
{
	struct x86_state state;

	begin();
	put_apart();
	PUT_CODE(CODE, 0x48, 0x8b, 0x04, 0x24, 0x48, 0x80, 0xc4, 0x7f, 0x48, 0x8b, 0x9c, 0x24, 0x90,
		 0xfe, 0xff, 0xff, HLT);
	for (unsigned n = 0; n < 3; n++) {
		set_gpr(RSP, DATA + 0xf8);
		set_rip(CODE);
		state = run(NULL);
	}
	expect(state.gpr[RAX] == 0x1111111111111111 && state.gpr[RBX] == 0x5555555555555555,
	       "SPL wraps, and what is read is at RSP");
}

/* again: mov al, [rcx - 0xf0]; add cl, 0x20 (with REX.W); dec rdx; jnz again */
static void test_narrow_step_in_loop(void)
{
	struct x86_state state;

	begin();
	put_apart();
	PUT_CODE(CODE, 0x8a, 0x81, 0x10, 0xff, 0xff, 0xff, 0x48, 0x80, 0xc1, 0x20, 0x48, 0xff, 0xca,
		 0x75, 0xf1, HLT);
	for (unsigned n = 0; n < 3; n++) {
		set_gpr(RAX, 0);
		set_gpr(RCX, DATA + 0xf0);
		set_gpr(RDX, 62);
		set_rip(CODE);
		state = run(NULL);
	}
	expect(state.gpr[RAX] == 0x55 && !state.gpr[RDX], "CL wraps in a loop");
}

static unsigned asked;
static bool tables_are_right;

/* The guest's other spaces are there, so that what is forgotten comes back as another one. */
static void flush_meanwhile(void *context, uint64_t gpa, void *to, size_t bytes)
{
	struct soft_cpu *cpu = soft();

	(void)context;
	(void)gpa;
	memset(to, 0, bytes);
	if (!asked++) {
		soft_forget_everywhere(cpu->engine);
		return;
	}
	tables_are_right = cpu->read_table == cpu->view_read[soft_view(&cpu->state)] &&
			   cpu->write_table == cpu->view_write[soft_view(&cpu->state)];
}

/* mov eax, [rdi] of a device, twice; hlt */
static void test_flush_in_block(void)
{
	begin();
	/* another root was used, and is the first that is free afterwards */
	soft()->state.cr3 = TABLES | 8;
	soft_change_root(soft(), false);
	soft()->state.cr3 = TABLES;
	soft_change_root(soft(), false);
	PUT_CODE(CODE, 0x8b, 0x07, 0x8b, 0x07, HLT);
	set_gpr(RDI, DEVICE);
	asked = 0;
	run(NULL);
	expect(asked == 2 && tables_are_right, "a flush while a device is asked");
}

/* ---- past branches of the engine */

enum {
	/* two pages of the guest, whose frames do not lie side by side */
	PAIR = 0x150000,
	FIRST_FRAME = 0x190000,
	SECOND_FRAME = 0x1a0000,
	TO = 0x1c0000,
	SECRET = 0x5a,
	PRIMING = 300,
	LEAKED = 1
};

/*
 * What reads at RSI, RCX times if it repeats; what it read is in RAX, and at TO if it is a string.
 * Zero where nothing came from beside the pages.
 */
struct past_branch {
	const char *what;
	uint8_t code[32];
	unsigned bytes, before_end, count;
	bool bounds_all, is_strip;
};

static const struct past_branch past_branches[] = {
	{ .what = "a group of reads", /* mov rax, [rsi]; mov rdx, [rsi + 112] */
	  .code = { 0x48, 0x8b, 0x06, 0x48, 0x8b, 0x56, 112, HLT },
	  .bytes = 8,
	  .before_end = 64 },
	{ .what = "a wide read", /* movups xmm0, [rsi]; movq rax, xmm0 */
	  .code = { 0x0f, 0x10, 0x06, 0x66, 0x48, 0x0f, 0x7e, 0xc0, HLT },
	  .bytes = 9,
	  .before_end = 9 },
	{ .what = "a string", /* rep movsb */
	  .code = { 0xf3, 0xa4, HLT },
	  .bytes = 3,
	  .before_end = 4,
	  .count = 8 },
	{ .what = "a read", /* mov rax, [rsi] */
	  .code = { 0x48, 0x8b, 0x06, HLT },
	  .bytes = 4,
	  .before_end = 4,
	  .bounds_all = true },
	{ .what = "a read by a displaced register", /* mov r10, rsi; mov rax, [r10] */
	  .code = { 0x49, 0x89, 0xf2, 0x49, 0x8b, 0x02, HLT },
	  .bytes = 7,
	  .before_end = 4,
	  .bounds_all = true },
	{ .what = "a loop in strips", /* or rax, [rsi]; add rsi, 8; dec rcx; jnz to the begin */
	  .code = { 0x48, 0x0b, 0x06, 0x48, 0x83, 0xc6, 8, 0x48, 0xff, 0xc9, 0x75, 0xf4, HLT },
	  .bytes = 13,
	  .before_end = 160,
	  .count = 40,
	  .bounds_all = true,
	  .is_strip = true },
};

static void set_pair(const struct past_branch *branch, uint64_t rsi, uint64_t count)
{
	begin();
	put64(entry_at(PAIR), FIRST_FRAME | ENTRY_PRESENT);
	put64(entry_at(PAIR + PAGE), SECOND_FRAME | ENTRY_PRESENT);
	soft()->engine->bounds_all = branch->bounds_all;
	set_gpr(RSI, rsi);
	set_gpr(RDI, TO);
	set_gpr(RCX, count);
}

static const struct block *block_at(uint64_t gpa)
{
	const struct soft_engine *engine = soft()->engine;
	uint32_t n = engine->page_blocks[gpa / PAGE];

	while (n && engine->blocks[n - 1].gpa != gpa)
		n = engine->blocks[n - 1].next_in_page;
	return n ? &engine->blocks[n - 1] : NULL;
}

/* JZ, JNZ, JA of hot code become nothing; of a strip the JLE behind what is left, R10, is taken. */
static bool take_branches_out(const struct past_branch *branch)
{
	enum { TWO_BYTES = 0x0f, JZ = 0x84, JNZ = 0x85, JA = 0x87, JLE = 0x8e };
	enum { NOP = 0x90, JMP = 0xe9 };
	static const uint8_t add_r10[] = { 0x41, 0x83, 0xc2 };
	const struct block *b = block_at(CODE);
	uint8_t *hot = b ? soft()->engine->code_write + b->host_offset : NULL;
	bool behind_counter = false;
	unsigned found = 0;

	for (unsigned n = 0; b && n + 6 <= b->hot_bytes; n++) {
		uint8_t *at = hot + n;

		behind_counter |= !memcmp(at, add_r10, sizeof(add_r10));
		if (at[0] != TWO_BYTES ||
		    (branch->is_strip ? !behind_counter || at[1] != JLE
				      : at[1] != JZ && at[1] != JNZ && at[1] != JA))
			continue;
		if (branch->is_strip) {
			at[0] = NOP;
			at[1] = JMP;
			return true;
		}
		memset(at, NOP, 6);
		found++;
	}
	return found;
}

/* What set_pair() has forgotten. */
static void fill(uint64_t gva, unsigned access)
{
	struct fault fault;
	uint64_t gpa;
	uint8_t *hva;

	if (soft_fill(soft(), gva, access, &hva, &gpa, &fault))
		expect(false, "a page is cached");
}

/* In a process of its own, which may end by a fault: that reached nothing. */
static bool leaks(void)
{
	int status = 0;
	pid_t child = fork();

	if (!child) {
		struct x86_state after = run(NULL);
		uint64_t stored;

		memcpy(&stored, ram + TO, sizeof(stored));
		_exit(after.gpr[RAX] || stored ? LEAKED : 0);
	}
	return child < 0 || waitpid(child, &status, 0) != child ||
	       (WIFEXITED(status) && WEXITSTATUS(status) == LEAKED);
}

static void test_past_branches(void)
{
	memset(ram + FIRST_FRAME - PAGE, SECRET, 3 * PAGE);
	memset(ram + SECOND_FRAME - PAGE, SECRET, 3 * PAGE);
	memset(ram + FIRST_FRAME, 0, PAGE);
	memset(ram + SECOND_FRAME, 0, PAGE);
	memset(ram + TO, 0, PAGE);
	for (unsigned n = 0; n < sizeof(past_branches) / sizeof(*past_branches); n++) {
		const struct past_branch *branch = &past_branches[n];
		char what[80];
		bool is_out;

		put_code(CODE, branch->code, branch->bytes);
		/* both pages are cached, and the loop is worth a strip */
		set_pair(branch, PAIR, branch->is_strip ? PRIMING : branch->count);
		run(NULL);
		set_pair(branch, PAIR + PAGE, branch->is_strip ? PRIMING : branch->count);
		run(NULL);
		is_out = take_branches_out(branch);
		set_pair(branch, PAIR + PAGE - branch->before_end, branch->count);
		fill(PAIR, ACCESS_READ);
		fill(PAIR + PAGE, ACCESS_READ);
		fill(TO, ACCESS_WRITE);
		snprintf(what, sizeof(what), "%s past a branch reaches no frame beside",
			 branch->what);
		expect(is_out && !leaks(), what);
	}
}

/* ---- what a host says of an address that is not canonical ---- */

static void *told_address;
static struct sigaction of_engine;

/* What the kernel of another host would have told. */
static void tell(int number, siginfo_t *info, void *context)
{
	info->si_addr = told_address;
	of_engine.sa_sigaction(number, info, context);
}

/* mov rax, [rsi], not canonical; what a process of its own ends with. */
static int run_not_canonical(void *address)
{
	enum { RAN_ON = 3 };
	struct sigaction action;
	enum engine_exit why;
	int status = -1;
	pid_t child;

	begin();
	PUT_CODE(CODE, 0x48, 0x8b, 0x06, HLT);
	set_gpr(RSI, DATA);
	run(NULL); /* translated: code is not made in a copy of a process */
	child = fork();
	if (child)
		return child < 0 || waitpid(child, &status, 0) != child ? -1 : status;
	told_address = address;
	sigaction(SIGSEGV, NULL, &of_engine);
	action = of_engine;
	action.sa_sigaction = tell;
	sigaction(SIGSEGV, &action, NULL);
	set_rip(CODE);
	set_gpr(RSI, DATA | 1ull << 60);
	run(&why);
	_exit(why == ENGINE_EXIT_SHUTDOWN ? 0 : RAN_ON);
}

static void test_told_addresses(void)
{
	enum { OWN_FAULT = 70 };
	const uint64_t of_57_bits = 1ull << 60;
	int status = run_not_canonical((void *)(uintptr_t)of_57_bits);

	expect(!status, "an address that is not canonical, told by a host of 57 bits, is #GP");
	status = run_not_canonical(NULL);
	expect(!status, "the same, not told by one of 48");
	status = run_not_canonical(ram);
	expect(WIFEXITED(status) && WEXITSTATUS(status) == OWN_FAULT,
	       "any other address is a fault of the engine's");
}

/* ---- past the branch of a lookup that found nothing ---- */

enum { UNMENDED = 0xfff /* the poison of an engine without the secret */ };
static uint8_t hosts_own[2 * PAGE] __attribute__((aligned(PAGE)));
static uint8_t *const victim = hosts_own + PAGE / 2;

/* At RSI, RDI or RSP; RAX is what was read. has_control: without the mend it gets there. */
struct gadget {
	const char *what;
	uint8_t code[16];
	unsigned bytes;
	uint64_t rcx;
	bool by_rsi, by_rdi, by_rsp, has_control;
};

static const struct gadget gadgets[] = {
	{ .what = "load of a byte", /* movzx eax, byte [rsi] */
	  .code = { 0x0f, 0xb6, 0x06, HLT },
	  .bytes = 4,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "load", /* mov rax, [rsi] */
	  .code = { 0x48, 0x8b, 0x06, HLT },
	  .bytes = 4,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "load by a displaced register", /* mov r10, rsi; mov eax, [r10 + rcx] */
	  .code = { 0x49, 0x89, 0xf2, 0x41, 0x8b, 0x04, 0x0a, HLT },
	  .bytes = 8,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "store", /* mov [rsi], al */
	  .code = { 0x88, 0x06, HLT },
	  .bytes = 3,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "locked addition", /* lock inc dword [rsi] */
	  .code = { 0xf0, 0xff, 0x06, HLT },
	  .bytes = 4,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "string load", /* movsb; movzx eax, byte [rdi - 1] */
	  .code = { 0xa4, 0x0f, 0xb6, 0x47, 0xff, HLT },
	  .bytes = 6,
	  .by_rsi = true,
	  .has_control = true },
	{ .what = "string store", /* stosb */
	  .code = { 0xaa, HLT },
	  .bytes = 2,
	  .by_rdi = true,
	  .has_control = true },
	{ .what = "repeated string store", /* rep stosb */
	  .code = { 0xf3, 0xaa, HLT },
	  .bytes = 3,
	  .rcx = 4,
	  .by_rdi = true,
	  .has_control = true },
	{ .what = "pop", /* pop rax */
	  .code = { 0x58, HLT },
	  .bytes = 2,
	  .by_rsp = true,
	  .has_control = true },
	{ .what = "push", /* push rax */
	  .code = { 0x50, HLT },
	  .bytes = 2,
	  .by_rsp = true,
	  .has_control = true },
	/* what keeps these from it is the jump cache: the control is one that leads there */
	{ .what = "indirect jump", /* jmp rsi */
	  .code = { 0xff, 0xe6 },
	  .bytes = 2,
	  .by_rsi = true },
	{ .what = "indirect call", /* call rsi */
	  .code = { 0xff, 0xd6 },
	  .bytes = 2,
	  .by_rsi = true },
	{ .what = "return", /* push rsi; ret */
	  .code = { 0x56, 0xc3 },
	  .bytes = 2,
	  .by_rsi = true },
};

static void set_gadget(const struct gadget *gadget, uint64_t at)
{
	begin();
	set_gpr(RAX, 0x11);
	set_gpr(RCX, gadget->rcx);
	set_gpr(RSI, gadget->by_rsi ? at : DATA);
	set_gpr(RDI, gadget->by_rdi ? at : TO);
	set_gpr(RSP, gadget->by_rsp ? at : STACK);
}

/* Where `reached` is, code that tells that it was. */
static void put_victim(bool is_code)
{
	/* mov edi, LEAKED; mov eax, exit_group; syscall */
	static const uint8_t reached[] = { 0xbf, LEAKED, 0,    0,    0,	 0xb8,
					   231,	 0,	 0,    0, 0x0f, 0x05 };

	memset(hosts_own, SECRET, sizeof(hosts_own));
	if (!is_code)
		return;
	memcpy(victim, reached, sizeof(reached));
	if (mprotect(hosts_own, sizeof(hosts_own), PROT_READ | PROT_WRITE | PROT_EXEC))
		expect(false, "code that tells of itself");
}

static bool victim_is_as_before(void)
{
	for (unsigned n = 0; n < sizeof(hosts_own); n++)
		if (hosts_own[n] != SECRET)
			return false;
	return true;
}

static bool make_engine(bool is_control)
{
	engine = engine_create(&memory, &engine_options);
	if (!engine)
		return false;
	if (is_control)
		((struct soft_engine *)engine)->poison = UNMENDED;
	cpu = engine_cpu_create(engine, &ops, NULL);
	return cpu && !engine_prepare_thread(cpu);
}

/* The short JNZ in front of the jump by the jump cache: as if the entry were that of the target. */
static bool take_comparison_out(void)
{
	enum { JNZ_SHORT = 0x75, GROUP_5 = 0xff, NOP = 0x90, PREFIXES = 3 };
	const struct block *b = block_at(CODE);
	uint8_t *hot = b ? soft()->engine->code_write + b->host_offset : NULL;
	bool is_out = false;

	for (unsigned n = 0; b && n + 2 + PREFIXES <= b->hot_bytes; n++)
		if (hot[n] == JNZ_SHORT && memchr(hot + n + 2, GROUP_5, PREFIXES)) {
			memset(hot + n, NOP, 2);
			is_out = true;
		}
	return is_out;
}

/* What is exited with in a process of its own. */
static int try_gadget(const struct gadget *gadget, bool is_control)
{
	enum { BROKEN = 2 };
	const struct past_branch any = { .what = gadget->what };
	uint64_t at = (uint64_t)victim - (gadget->has_control ? UNMENDED : 0);
	struct x86_state after;

	put_victim(!gadget->has_control);
	if (!make_engine(is_control))
		return BROKEN;
	begin();
	put_code(CODE, gadget->code, gadget->bytes);
	/* translated, with what it needs in the tables and in the jump cache */
	put_code(DATA, (const uint8_t[]){ HLT }, 1);
	set_gadget(gadget, gadget->has_control ? DATA + 8 : DATA);
	run(NULL);
	if (gadget->has_control ? !take_branches_out(&any) : !take_comparison_out())
		return BROKEN;
	set_gadget(gadget, at);
	if (is_control && !gadget->has_control)
		soft()->jump_cache[soft_jump_index(at)].host = (uint64_t)victim;
	fill(TO, ACCESS_READ);
	fill(TO, ACCESS_WRITE);
	fill(STACK - PAGE, ACCESS_READ);
	fill(STACK - PAGE, ACCESS_WRITE);
	after = run(NULL);
	return (uint8_t)after.gpr[RAX] == SECRET ||
			       (gadget->has_control && !victim_is_as_before())
		       ? LEAKED
		       : 0;
}

/* A signal or the engine's own end is none that leaked; in the control it would be none, too. */
static bool gadget_leaks(const struct gadget *gadget, bool is_control)
{
	int status = 0;
	pid_t child = fork();

	if (!child)
		_exit(try_gadget(gadget, is_control));
	if (child < 0 || waitpid(child, &status, 0) != child)
		expect(false, "a process of its own");
	if (WIFEXITED(status) && WEXITSTATUS(status) > LEAKED && WEXITSTATUS(status) != 70)
		expect(false, gadget->what);
	return WIFEXITED(status) && WEXITSTATUS(status) == LEAKED;
}

static void test_gadgets(void)
{
	for (unsigned n = 0; n < sizeof(gadgets) / sizeof(*gadgets); n++) {
		const struct gadget *gadget = &gadgets[n];
		char what[80];

		snprintf(what, sizeof(what), "%s past a lookup that found nothing", gadget->what);
		expect(!gadget_leaks(gadget, false), what);
		snprintf(what, sizeof(what), "%s gets there %s", gadget->what,
			 gadget->has_control ? "without the secret"
					     : "where the jump cache leads there");
		expect(gadget_leaks(gadget, true), what);
	}
}

int main(void)
{
	static struct engine_ops with_device;

	with_device = ops;
	with_device.mmio_read = flush_meanwhile;
	ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		return 70;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	engine = engine_create(&memory, &engine_options);
	cpu = engine_cpu_create(engine, &with_device, NULL);
	if (!cpu || engine_prepare_thread(cpu))
		return 70;
	test_store_into_own_block();
	test_straddling_return();
	test_fill_ahead_unmarked();
	test_store_beside_watchpoint();
	test_narrow_step_of_stack();
	test_narrow_step_in_loop();
	test_flush_in_block();
	test_told_addresses();
	test_past_branches();
	test_gadgets();
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
