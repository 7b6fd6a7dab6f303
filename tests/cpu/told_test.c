/*
 * A page loses its last code while a processor is on its way to write it: between the look whether
 * a write entry may be made (no: it has code) and the access itself. Who makes code of it again
 * then waits for nobody, so the write has to be told.
 *
 *   a store, a locked addition and a string, each to such a page, are told
 *   to a page that never had code they are not, which is the control
 */
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/space.h"
#include "bare_guest.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x20000,
	STACK = 0x30000,
	TARGETS = 0x100000,
	PLAIN = 0x200000,
	OFFSET = 0x800, /* of what is written in its page */
	VALUE = 0x5a
};

static const struct program {
	const char *name;
	uint8_t code[8];
} programs[] = {
	{ "a store", { 0x89, 0x07, HLT } },                 /* mov [rdi], eax */
	{ "a locked addition", { 0xf0, 0x01, 0x07, HLT } }, /* lock add [rdi], eax */
	{ "a string", { 0xf3, 0xaa, HLT } },                /* rep stosb */
};
enum { PROGRAMS = sizeof(programs) / sizeof(programs[0]) };

/* ---- between the look and the access (the linker's --wrap) ---- */

static uint64_t gives_up; /* the page whose code goes with the next fill for a write */
static unsigned told;

void __real_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found);
void __wrap_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found);
int __real_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault);
int __wrap_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault);
void __real_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes);
void __wrap_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes);

void __wrap_soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			     const struct page_walk *found)
{
	const uint64_t page = gives_up;

	__real_soft_fill_beside(cpu, at, gva, write, found);
	if (!write || !page)
		return;
	gives_up = 0;
	soft_invalidate(cpu->engine, page, 1);
}

int __wrap_soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes,
		      unsigned access, struct fault *fault)
{
	told++;
	return __real_soft_write(cpu, gva, from, bytes, access, fault);
}

void __wrap_soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes)
{
	told++;
	__real_soft_has_written(engine, hva, gpa, bytes);
}

/* ---- the guest ---- */

static void run(struct engine_cpu *cpu, uint64_t rip, uint64_t to)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = rip;
	state.x86.rflags = 2;
	state.x86.gpr[0] = VALUE;
	state.x86.gpr[1] = 1;
	state.x86.gpr[4] = STACK;
	state.x86.gpr[7] = to;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(cpu) != ENGINE_EXIT_HALT)
		abort();
}

static void test(struct engine *engine, struct engine_cpu *cpu, unsigned n)
{
	const uint64_t code = CODE + n * PAGE;
	const uint64_t target = TARGETS + n * PAGE;
	const uint64_t plain = PLAIN + n * PAGE;
	const struct soft_engine *soft = (const struct soft_engine *)engine;
	const uint8_t *flags = &soft->frame_flags[soft_frame(soft, ram + target)];

	memcpy(ram + code, programs[n].code, sizeof(programs[n].code));
	ram[target] = HLT;
	printf("%s:\n", programs[n].name);
	told = 0;
	run(cpu, code, plain + OFFSET);
	expect(ram[plain + OFFSET] == VALUE && !told, "to a page that never had code is not told");
	run(cpu, target, 0);
	expect(*flags & FRAME_CODE, "goes to a page that has code");
	gives_up = target;
	run(cpu, code, target + OFFSET);
	expect(!gives_up && !(*flags & FRAME_CODE), "finds that it has none any more");
	expect(ram[target + OFFSET] == VALUE && told, "is told all the same");
}

int main(void)
{
	struct guest guest;

	make_ram(RAM_BYTES);
	guest = begin(ENGINE_LEAST_OVERHEAD_BYTES, 0);
	for (unsigned n = 0; n < PROGRAMS; n++)
		test(guest.engine, guest.cpu, n);
	end(guest);
	return failures != 0;
}
