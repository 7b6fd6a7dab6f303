/*
 * Hardware task switches (SDM Vol. 3A chapter 7) by 16- and 32-bit task state segments:
 *
 *   32-bit   0 link   28 CR3   32 EIP   36 EFLAGS   40 eight registers   72 ES CS SS DS FS GS
 *            96 LDT   100 T, I/O map
 *   16-bit   0 link   14 IP   16 FLAGS   18 eight registers   34 ES CS SS DS   42 LDT
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum {
	TSS_16 = 1,
	TSS_32 = 9,
	BUSY = 2,
	WIDE = 8,
	SYSTEM_TYPE = 0x1f,
	TYPE_BYTE = 5,
	REGISTERS = 8,
	LDT = 2
};
enum { TSS32_BYTES = 104, TSS16_BYTES = 44, TSS32_CR3 = 28, TSS32_TRAP = 100, DR6_BT = 0x8000 };

/* Where the parts are, all of them in one order: rip, flags, registers, segments, LDT. */
struct layout { unsigned bytes, first, field, segments, segments_at, segment_step, ldt; };

static const struct layout layout_32 = { .bytes = TSS32_BYTES,
					 .first = 32,
					 .field = 4,
					 .segments = 6,
					 .segments_at = 72,
					 .segment_step = 4,
					 .ldt = 96 };
static const struct layout layout_16 = { .bytes = TSS16_BYTES,
					 .first = 14,
					 .field = 2,
					 .segments = 4,
					 .segments_at = 34,
					 .segment_step = 2,
					 .ldt = 42 };

static const struct layout *layout_of(const struct x86_segment_state *task)
{
	return task->attributes & WIDE ? &layout_32 : &layout_16;
}

static void put(uint8_t *image, unsigned at, uint64_t value, unsigned bytes)
{
	memcpy(image + at, &value, bytes);
}

static uint64_t get(const uint8_t *image, unsigned at, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, image + at, bytes);
	return value;
}

static int fail(struct step *step, unsigned vector, uint16_t selector, uint32_t ext)
{
	return soft_fail(step->fault, vector, true, (selector & 0xfffcu) | ext);
}

/* SDM Vol. 3A table 7-1, the checks before anything has changed. */
static int find_task(struct step *step, uint16_t selector, enum task_reason reason, uint32_t ext,
		     struct x86_segment_state *ret)
{
	unsigned bad = reason == TASK_BY_IRET || reason == TASK_BY_INTERRUPT ? EXC_TS : EXC_GP;
	uint64_t descriptor[2];
	unsigned type;

	if (!(selector & 0xfffc) || selector & 4)
		return fail(step, bad, selector, ext);
	if (insn_read_descriptor(step, selector, descriptor, false))
		return step->fault->vector == EXC_GP ? fail(step, bad, selector, ext) : -EFAULT;
	*ret = insn_unpack_descriptor(selector, descriptor);
	type = ret->attributes & SYSTEM_TYPE & ~(unsigned)BUSY;
	if ((type != TSS_16 && type != TSS_32) ||
	    (reason == TASK_BY_IRET) != !!(ret->attributes & BUSY))
		return fail(step, bad, selector, ext);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return fail(step, EXC_NP, selector, ext);
	return ret->limit + 1ull < layout_of(ret)->bytes ? fail(step, EXC_TS, selector, ext) : 0;
}

static int set_busy(struct step *step, uint16_t selector, bool busy)
{
	uint64_t at = step->state->gdtr.base + (selector & 0xfff8) + TYPE_BYTE;
	uint8_t type = 0;

	if (soft_read(step->cpu, at, &type, 1, ACCESS_SYSTEM | ACCESS_READ, step->fault))
		return -EFAULT;
	type = busy ? type | BUSY : type & (uint8_t)~BUSY;
	return soft_write(step->cpu, at, &type, 1, ACCESS_SYSTEM, step->fault);
}

static int save_task(struct step *step, uint64_t flags)
{
	const struct x86_state *state = step->state;
	const struct layout *layout = layout_of(&state->tr);
	uint8_t image[TSS32_BYTES] = { 0 };
	unsigned end = layout->segments_at + layout->segments * layout->segment_step;

	put(image, layout->first, step->next, layout->field);
	put(image, layout->first + layout->field, flags, layout->field);
	for (unsigned n = 0; n < REGISTERS; n++)
		put(image, layout->first + (2 + n) * layout->field, state->gpr[n], layout->field);
	for (unsigned n = 0; n < layout->segments; n++)
		put(image, layout->segments_at + n * layout->segment_step,
		    state->segment[n].selector, layout->segment_step);
	return soft_write(step->cpu, state->tr.base + layout->first, image + layout->first,
			  end - layout->first, ACCESS_SYSTEM, step->fault);
}

static void load_registers(struct step *step, const struct layout *layout, const uint8_t *image,
			   bool nested)
{
	struct x86_state *state = step->state;
	uint64_t flags = get(image, layout->first + layout->field, layout->field);

	state->rip = get(image, layout->first, layout->field);
	soft_set_rflags(step->cpu, flags | (nested ? FLAG_NT : 0));
	/* of a 16-bit TSS the upper halves are undefined; they stay */
	for (unsigned n = 0; n < REGISTERS; n++)
		state->gpr[n] = layout->field == 4
					? get(image, layout->first + (2 + n) * 4, 4)
					: (state->gpr[n] & ~0xffffull) |
						  get(image, layout->first + (2 + n) * 2, 2);
	for (unsigned n = 0; n < X86_SEGMENTS; n++) {
		uint64_t selector =
			n < layout->segments
				? get(image, layout->segments_at + n * layout->segment_step, 2)
				: 0;

		state->segment[n] = (struct x86_segment_state){ .selector = (uint16_t)selector };
	}
	state->ldtr =
		(struct x86_segment_state){ .selector = (uint16_t)get(image, layout->ldt, 2) };
	state->cpl = insn_is_virtual(state) ? 3 : state->segment[X86_CS].selector & 3;
}

static int load_local_table(struct step *step, uint32_t ext)
{
	struct x86_state *state = step->state;
	uint16_t selector = state->ldtr.selector;
	struct x86_segment_state table;
	uint64_t descriptor[2];

	if (!(selector & 0xfffc))
		return 0;
	if (selector & 4 || insn_read_descriptor(step, selector, descriptor, false))
		return fail(step, EXC_TS, selector, ext);
	table = insn_unpack_descriptor(selector, descriptor);
	if ((table.attributes & SYSTEM_TYPE) != LDT || !(table.attributes & SEGMENT_PRESENT))
		return fail(step, EXC_TS, selector, ext);
	state->ldtr = table;
	return 0;
}

static int load_code(struct step *step, uint32_t ext)
{
	struct x86_state *state = step->state;
	uint16_t selector = state->segment[X86_CS].selector;
	struct x86_segment_state code;
	unsigned dpl;
	uint64_t descriptor[2];

	if (!(selector & 0xfffc) || insn_read_descriptor(step, selector, descriptor, false))
		return fail(step, EXC_TS, selector, ext);
	code = insn_unpack_descriptor(selector, descriptor);
	dpl = code.attributes >> 5 & 3;
	if (!insn_is_code(&code) ||
	    (code.attributes & CODE_CONFORMING ? dpl > state->cpl : dpl != state->cpl))
		return fail(step, EXC_TS, selector, ext);
	if (!(code.attributes & SEGMENT_PRESENT))
		return fail(step, EXC_NP, selector, ext);
	insn_set_code(step->cpu, &code);
	return insn_mark_accessed(step, selector, descriptor);
}

/*
 * With the new task's registers in place: its faults are raised in it, and segments not loaded yet
 * cannot be used.
 */
static int load_segments(struct step *step, uint32_t ext)
{
	static const uint8_t order[] = { X86_SS, X86_ES, X86_DS, X86_FS, X86_GS };

	if (load_local_table(step, ext))
		return -EFAULT;
	if (insn_is_virtual(step->state)) {
		for (unsigned n = 0; n < X86_SEGMENTS; n++)
			step->state->segment[n] =
				insn_virtual_segment(step->state->segment[n].selector);
		return 0;
	}
	if (load_code(step, ext))
		return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++) {
		if (!insn_load_segment(step, order[n], step->state->segment[order[n]].selector))
			continue;
		if (step->fault->vector == EXC_GP) {
			step->fault->vector = EXC_TS;
			step->fault->code |= ext;
		}
		return -EFAULT;
	}
	return 0;
}

/*
 * Everything before the commit: the old task is saved, descriptors say which task is busy, the link
 * says where from.
 */
static int leave_task(struct step *step, struct x86_segment_state *task, enum task_reason reason,
		      uint64_t flags)
{
	bool nested = reason == TASK_BY_CALL || reason == TASK_BY_INTERRUPT;
	uint16_t old = step->state->tr.selector;

	if (reason == TASK_BY_IRET)
		flags &= ~(uint64_t)FLAG_NT;
	if (save_task(step, flags) || (!nested && set_busy(step, old, false)))
		return -EFAULT;
	if (nested && soft_write(step->cpu, task->base, &old, 2, ACCESS_SYSTEM, step->fault))
		return -EFAULT;
	task->attributes |= BUSY;
	return set_busy(step, task->selector, true);
}

/*
 * PAE: a new value brings its four entries (SDM Vol. 3A 4.4.1). False: they are bad, and CR3 stays.
 */
static bool load_root(struct soft_cpu *cpu, uint64_t root)
{
	struct x86_state *state = &cpu->state;

	if (state->cr4 & CR4_PAE && root != state->cr3 && !soft_load_pae_roots(cpu, root))
		return false;
	state->cr3 = root;
	return true;
}

int insn_switch_task(struct step *step, uint16_t selector, enum task_reason reason, uint64_t flags,
		     uint32_t ext)
{
	struct soft_cpu *cpu = step->cpu;
	struct x86_state *state = step->state;
	struct x86_segment_state task;
	const struct layout *layout;
	uint8_t image[TSS32_BYTES];
	bool has_root = true;

	if (find_task(step, selector, reason, ext, &task))
		return -EFAULT;
	layout = layout_of(&task);
	if (soft_read(cpu, task.base, image, layout->bytes, ACCESS_SYSTEM | ACCESS_READ,
		      step->fault) ||
	    leave_task(step, &task, reason, flags))
		return -EFAULT;
	state->tr = task;
	state->cr0 |= CR0_TS;
	if (layout == &layout_32 && state->cr0 & CR0_PG)
		has_root = load_root(cpu, get(image, TSS32_CR3, 4));
	load_registers(step, layout, image, reason == TASK_BY_CALL || reason == TASK_BY_INTERRUPT);
	state->dr[7] &= ~0x155ull; /* the local enable bits */
	soft_debug_changed(cpu); /* flushes, as the new CR3 asks */
	soft_select_view(cpu);
	if (load_segments(step, ext))
		return -EFAULT;
	soft_select_view(cpu);
	if (!has_root) /* the new task hears of it */
		return insn_general_protection(step);
	if (layout == &layout_32 && image[TSS32_TRAP] & 1) {
		state->dr[6] |= DR6_BT;
		return soft_fail(step->fault, EXC_DB, false, 0);
	}
	return 0;
}
