/*
 * What guests hardly ever do, each once done wrong: small programs at their own addresses, and
 * looks into the engine afterwards.
 *
 *   a store that crosses into the block that it stands in is seen by the rest of that block
 *   RET of a constant, across two pages, to an address that is not canonical faults at itself
 *   no page is filled ahead through an upper table that is not marked as accessed
 *   a store beside a watchpoint tells its frame as written
 *   a flush while a device is asked leaves the tables that the rest of the block looks up right
 */
#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/space.h"
#include "no_devices.h"

#include <stdio.h>
#include <sys/mman.h>

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
	RSP = 4,
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

static void put64(uint64_t gpa, uint64_t v) { memcpy(ram + gpa, &v, 8); }

static uint64_t get64(uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, ram + gpa, 8);
	return v;
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
	struct x86_state *s = &state.x86;

	make_tables();
	s->cr0 = CR0_PE | CR0_PG | 0x30;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE | 0x600 | CR4_OSXSAVE;
	s->xcr0 = 7;
	s->efer = EFER_LME | EFER_LMA;
	s->segment[X86_CS] =
		(struct x86_segment_state){ .selector = 8, .attributes = 0xa09b, .limit = ~0u };
	s->segment[X86_SS] =
		(struct x86_segment_state){ .selector = 16, .attributes = 0xc093, .limit = ~0u };
	s->dr[7] = 0x400;
	s->rip = CODE;
	s->rflags = 2;
	s->gpr[RSP] = STACK;
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
	const struct fault fault = { .vector = EXC_PF, .address = DATA };
	struct soft_cpu *c = soft();

	for (unsigned marked = 0; marked < 2; marked++) {
		begin();
		c->state.cpl = 3;
		soft_forget(c);
		for (unsigned n = 0; n < 2; n++)
			put64(entry_at(DATA + n * PAGE),
			      (DATA + n * PAGE) | ENTRY_PRESENT | ENTRY_ACCESSED);
		for (unsigned level = 0; level < 3; level++)
			put64(TABLES + level * PAGE,
			      get64(TABLES + level * PAGE) | (marked ? ENTRY_ACCESSED : 0));
		soft_note_fault(c, &fault);
		soft_fill_after_fault(c);
		expect(space_has(c->mmu, VIEW_USER, DATA + PAGE, false) == marked,
		       marked ? "a page is filled ahead" : "no page ahead by an unmarked table");
		c->state.cpl = 0;
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

static unsigned asked;
static bool tables_are_right;

/* The guest's other spaces are there, so that what is forgotten comes back as another one. */
static void flush_meanwhile(void *context, uint64_t gpa, void *to, size_t bytes)
{
	struct soft_cpu *c = soft();

	(void)context;
	(void)gpa;
	memset(to, 0, bytes);
	if (!asked++) {
		soft_forget_everywhere(c->engine);
		return;
	}
	tables_are_right = c->read_table == c->view_read[soft_view(&c->state)] &&
			   c->write_table == c->view_write[soft_view(&c->state)];
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
	test_flush_in_block();
	engine_cpu_destroy(cpu);
	engine_destroy(engine);
	return failures != 0;
}
