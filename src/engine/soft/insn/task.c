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

static int fail(struct step *t, unsigned vector, uint16_t selector, uint32_t ext)
{
	return soft_fail(t->fault, vector, true, (selector & 0xfffcu) | ext);
}

/* SDM Vol. 3A table 7-1, the checks before anything has changed. */
static int find_task(struct step *t, uint16_t selector, enum task_reason reason, uint32_t ext,
		     struct x86_segment_state *ret)
{
	unsigned bad = reason == TASK_BY_IRET || reason == TASK_BY_INTERRUPT ? EXC_TS : EXC_GP;
	uint64_t d[2];
	unsigned type;

	if (!(selector & 0xfffc) || selector & 4)
		return fail(t, bad, selector, ext);
	if (insn_read_descriptor(t, selector, d, false))
		return t->fault->vector == EXC_GP ? fail(t, bad, selector, ext) : -EFAULT;
	*ret = insn_unpack_descriptor(selector, d);
	type = ret->attributes & SYSTEM_TYPE & ~(unsigned)BUSY;
	if ((type != TSS_16 && type != TSS_32) ||
	    (reason == TASK_BY_IRET) != !!(ret->attributes & BUSY))
		return fail(t, bad, selector, ext);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return fail(t, EXC_NP, selector, ext);
	return ret->limit + 1ull < layout_of(ret)->bytes ? fail(t, EXC_TS, selector, ext) : 0;
}

static int set_busy(struct step *t, uint16_t selector, bool busy)
{
	uint64_t at = t->s->gdtr.base + (selector & 0xfff8) + TYPE_BYTE;
	uint8_t type = 0;

	if (soft_read(t->cpu, at, &type, 1, ACCESS_SYSTEM | ACCESS_READ, t->fault))
		return -EFAULT;
	type = busy ? type | BUSY : type & (uint8_t)~BUSY;
	return soft_write(t->cpu, at, &type, 1, ACCESS_SYSTEM, t->fault);
}

static int save_task(struct step *t, uint64_t flags)
{
	const struct x86_state *s = t->s;
	const struct layout *l = layout_of(&s->tr);
	uint8_t image[TSS32_BYTES] = { 0 };
	unsigned end = l->segments_at + l->segments * l->segment_step;

	put(image, l->first, s->rip, l->field);
	put(image, l->first + l->field, flags, l->field);
	for (unsigned n = 0; n < REGISTERS; n++)
		put(image, l->first + (2 + n) * l->field, s->gpr[n], l->field);
	for (unsigned n = 0; n < l->segments; n++)
		put(image, l->segments_at + n * l->segment_step, s->segment[n].selector,
		    l->segment_step);
	return soft_write(t->cpu, s->tr.base + l->first, image + l->first, end - l->first,
			  ACCESS_SYSTEM, t->fault);
}

static void load_registers(struct step *t, const struct layout *l, const uint8_t *image,
			   bool nested)
{
	struct x86_state *s = t->s;
	uint64_t flags = get(image, l->first + l->field, l->field);

	s->rip = get(image, l->first, l->field);
	soft_set_rflags(t->cpu, flags | (nested ? FLAG_NT : 0));
	/* of a 16-bit TSS the upper halves are undefined; they stay */
	for (unsigned n = 0; n < REGISTERS; n++)
		s->gpr[n] = l->field == 4 ? get(image, l->first + (2 + n) * 4, 4)
					  : (s->gpr[n] & ~0xffffull) |
						    get(image, l->first + (2 + n) * 2, 2);
	for (unsigned n = 0; n < X86_SEGMENTS; n++) {
		uint64_t selector =
			n < l->segments ? get(image, l->segments_at + n * l->segment_step, 2) : 0;

		s->segment[n] = (struct x86_segment_state){ .selector = (uint16_t)selector };
	}
	s->ldtr = (struct x86_segment_state){ .selector = (uint16_t)get(image, l->ldt, 2) };
	s->cpl = insn_is_virtual(s) ? 3 : s->segment[X86_CS].selector & 3;
}

static int load_local_table(struct step *t, uint32_t ext)
{
	struct x86_state *s = t->s;
	uint16_t selector = s->ldtr.selector;
	struct x86_segment_state table;
	uint64_t d[2];

	if (!(selector & 0xfffc))
		return 0;
	if (selector & 4 || insn_read_descriptor(t, selector, d, false))
		return fail(t, EXC_TS, selector, ext);
	table = insn_unpack_descriptor(selector, d);
	if ((table.attributes & SYSTEM_TYPE) != LDT || !(table.attributes & SEGMENT_PRESENT))
		return fail(t, EXC_TS, selector, ext);
	s->ldtr = table;
	return 0;
}

static int load_code(struct step *t, uint32_t ext)
{
	struct x86_state *s = t->s;
	uint16_t selector = s->segment[X86_CS].selector;
	struct x86_segment_state code;
	unsigned dpl;
	uint64_t d[2];

	if (!(selector & 0xfffc) || insn_read_descriptor(t, selector, d, false))
		return fail(t, EXC_TS, selector, ext);
	code = insn_unpack_descriptor(selector, d);
	dpl = code.attributes >> 5 & 3;
	if (!insn_is_code(&code) ||
	    (code.attributes & CODE_CONFORMING ? dpl > s->cpl : dpl != s->cpl))
		return fail(t, EXC_TS, selector, ext);
	if (!(code.attributes & SEGMENT_PRESENT))
		return fail(t, EXC_NP, selector, ext);
	insn_set_code(t->cpu, &code);
	return insn_mark_accessed(t, selector, d);
}

/*
 * With the new task's registers in place: its faults are raised in it, and segments not loaded yet
 * cannot be used.
 */
static int load_segments(struct step *t, uint32_t ext)
{
	static const uint8_t order[] = { X86_SS, X86_ES, X86_DS, X86_FS, X86_GS };

	if (load_local_table(t, ext))
		return -EFAULT;
	if (insn_is_virtual(t->s)) {
		for (unsigned n = 0; n < X86_SEGMENTS; n++)
			t->s->segment[n] = insn_virtual_segment(t->s->segment[n].selector);
		return 0;
	}
	if (load_code(t, ext))
		return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++) {
		if (!insn_load_segment(t, order[n], t->s->segment[order[n]].selector))
			continue;
		if (t->fault->vector == EXC_GP) {
			t->fault->vector = EXC_TS;
			t->fault->code |= ext;
		}
		return -EFAULT;
	}
	return 0;
}

/*
 * Everything before the commit: the old task is saved, descriptors say which task is busy, the link
 * says where from.
 */
static int leave_task(struct step *t, struct x86_segment_state *task, enum task_reason reason,
		      uint64_t flags)
{
	bool nested = reason == TASK_BY_CALL || reason == TASK_BY_INTERRUPT;
	uint16_t old = t->s->tr.selector;

	if (reason == TASK_BY_IRET)
		flags &= ~(uint64_t)FLAG_NT;
	if (save_task(t, flags) || (!nested && set_busy(t, old, false)))
		return -EFAULT;
	if (nested && soft_write(t->cpu, task->base, &old, 2, ACCESS_SYSTEM, t->fault))
		return -EFAULT;
	task->attributes |= BUSY;
	return set_busy(t, task->selector, true);
}

int insn_switch_task(struct step *t, uint16_t selector, enum task_reason reason, uint64_t flags,
		     uint32_t ext)
{
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;
	struct x86_segment_state task;
	const struct layout *l;
	uint8_t image[TSS32_BYTES];

	if (find_task(t, selector, reason, ext, &task))
		return -EFAULT;
	l = layout_of(&task);
	if (soft_read(cpu, task.base, image, l->bytes, ACCESS_SYSTEM | ACCESS_READ, t->fault) ||
	    leave_task(t, &task, reason, flags))
		return -EFAULT;
	s->tr = task;
	s->cr0 |= CR0_TS;
	if (l == &layout_32 && s->cr0 & CR0_PG)
		s->cr3 = get(image, TSS32_CR3, 4);
	load_registers(t, l, image, reason == TASK_BY_CALL || reason == TASK_BY_INTERRUPT);
	s->dr[7] &= ~0x155ull; /* the local enable bits */
	soft_debug_changed(cpu); /* flushes, as the new CR3 asks */
	soft_select_view(cpu);
	if (load_segments(t, ext))
		return -EFAULT;
	soft_select_view(cpu);
	if (l == &layout_32 && image[TSS32_TRAP] & 1) {
		s->dr[6] |= DR6_BT;
		return soft_fail(t->fault, EXC_DB, false, 0);
	}
	return 0;
}
