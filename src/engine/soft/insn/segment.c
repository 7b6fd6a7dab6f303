/* Segments: descriptors, loads of segment registers, the tables' own registers, FS and GS bases. */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

void soft_set_code_segment(struct x86_state *s, uint16_t selector, uint16_t attributes)
{
	s->segment[X86_CS] = (struct x86_segment_state){ .selector = selector,
							 .attributes = attributes,
							 .limit = ~0u };
}

void insn_set_code(struct soft_cpu *cpu, const struct x86_segment_state *code)
{
	uint64_t old_base = cpu->state.segment[X86_CS].base;

	cpu->state.segment[X86_CS] = *code;
	if (old_base != code->base)
		soft_flush_jumps(cpu); /* the jump cache knows offsets in the segment */
}

int insn_read_descriptor(struct step *t, uint16_t selector, uint64_t ret[2], bool wide)
{
	const struct x86_state *s = t->s;
	uint64_t base = selector & 4 ? s->ldtr.base : s->gdtr.base;
	uint64_t limit = selector & 4 ? s->ldtr.limit : s->gdtr.limit;

	ret[1] = 0;
	if ((selector & 0xfff8u) + (wide ? 15u : 7u) > limit)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	return soft_read(t->cpu, base + (selector & 0xfff8), ret, wide ? 16 : 8,
			 ACCESS_SYSTEM | ACCESS_READ, t->fault);
}

struct x86_segment_state insn_unpack_descriptor(uint16_t selector, const uint64_t d[2])
{
	struct x86_segment_state r = { .selector = selector,
				       .attributes = (uint16_t)(d[0] >> 40) & 0xf0ff };

	r.base = (d[0] >> 16 & 0xffffff) | (d[0] >> 32 & 0xff000000) | d[1] << 32;
	r.limit = (uint32_t)((d[0] & 0xffff) | (d[0] >> 32 & 0xf0000));
	if (r.attributes & 0x8000)
		r.limit = r.limit << 12 | PAGE_OFFSET_MASK;
	return r;
}

int insn_mark_accessed(struct step *t, uint16_t selector, const uint64_t d[2])
{
	enum { TYPE_BYTE = 5 };
	uint64_t table = selector & 4 ? t->s->ldtr.base : t->s->gdtr.base;
	uint8_t type = (uint8_t)(d[0] >> 8 * TYPE_BYTE);

	if (type & SEGMENT_ACCESSED)
		return 0;
	type |= SEGMENT_ACCESSED;
	return soft_write(t->cpu, table + (selector & 0xfff8) + TYPE_BYTE, &type, 1, ACCESS_SYSTEM,
			  t->fault);
}

static void load_null_segment(struct x86_state *s, unsigned which, uint16_t selector)
{
	/* AMD keeps base and limit of a nulled segment; so do we: FS and GS bases are set by MSR */
	s->segment[which].selector = selector;
	s->segment[which].attributes = 0;
	if (which != X86_FS && which != X86_GS)
		s->segment[which].base = 0;
}

/*
 * SDM Vol. 2, MOV to a segment register: type and privilege. SS is as privileged as the code, the
 * others at most.
 */
static bool is_loadable(const struct x86_segment_state *segment, unsigned which, unsigned cpl)
{
	unsigned rpl = segment->selector & 3;
	unsigned dpl = segment->attributes >> 5 & 3;
	bool conforming = insn_is_code(segment) && segment->attributes & CODE_CONFORMING;

	if (which == X86_SS)
		return insn_is_writable(segment) && rpl == cpl && dpl == cpl;
	if (!(segment->attributes & SEGMENT_NOT_SYSTEM) ||
	    (insn_is_code(segment) && !(segment->attributes & SEGMENT_WRITE_OR_READ)))
		return false;
	return conforming || (dpl >= rpl && dpl >= cpl);
}

int insn_load_segment(struct step *t, unsigned which, uint16_t selector)
{
	struct x86_state *s = t->s;
	struct x86_segment_state segment;
	uint64_t d[2];

	if (insn_is_virtual(s)) {
		s->segment[which] = insn_virtual_segment(selector);
		return 0;
	}
	if (!(s->cr0 & CR0_PE)) { /* what a descriptor left as limit and attributes stays */
		s->segment[which].selector = selector;
		s->segment[which].base = (uint64_t)selector << 4;
		return 0;
	}
	if (!(selector & 0xfffc)) {
		if (which == X86_SS &&
		    (x86_code_bits(s) != 64 || s->cpl == 3 || (selector & 3) != s->cpl))
			return insn_general_protection(t);
		load_null_segment(s, which, selector);
		return 0;
	}
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	segment = insn_unpack_descriptor(selector, d);
	if (!is_loadable(&segment, which, s->cpl))
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (!(segment.attributes & SEGMENT_PRESENT))
		return soft_fail(t->fault, which == X86_SS ? EXC_SS : EXC_NP, true,
				 selector & 0xfffc);
	if (insn_mark_accessed(t, selector, d))
		return -EFAULT;
	s->segment[which] = segment;
	return 0;
}

int insn_descriptor_tables(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned base_bytes = x86_code_bits(s) == 64 ? 8 : 4;
	struct x86_table *table = i->reg & 1 ? &s->idtr : &s->gdtr;
	uint8_t image[10] = { 0 };
	uint64_t base = 0;

	if (i->reg < 2) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return insn_general_protection(t);
		memcpy(image, &table->limit, 2);
		memcpy(image + 2, &table->base, 8);
		return soft_write(t->cpu, insn_address(t), image, 2 + base_bytes, 0, t->fault);
	}
	if (s->cpl)
		return insn_general_protection(t);
	if (soft_read(t->cpu, insn_address(t), image, 2 + base_bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	memcpy(&base, image + 2, i->operand_bytes == 2 && x86_code_bits(s) != 64 ? 3 : base_bytes);
	if (!soft_canonical(base))
		return insn_general_protection(t);
	table->base = base;
	memcpy(&table->limit, image, 2);
	return 0;
}

/* VERR, VERW: whether the segment could be read or written. No fault of the selector's. */
static bool is_accessible(struct step *t, uint16_t selector, bool write)
{
	struct x86_segment_state segment;
	unsigned rpl = selector & 3;
	unsigned dpl;
	uint64_t d[2];

	if (!(selector & 0xfffc) || insn_read_descriptor(t, selector, d, false))
		return false;
	segment = insn_unpack_descriptor(selector, d);
	dpl = segment.attributes >> 5 & 3;
	if (!(segment.attributes & SEGMENT_NOT_SYSTEM))
		return false;
	if (!(insn_is_code(&segment) && segment.attributes & CODE_CONFORMING) &&
	    (dpl < rpl || dpl < t->s->cpl))
		return false;
	return write ? insn_is_writable(&segment)
		     : !insn_is_code(&segment) || segment.attributes & SEGMENT_WRITE_OR_READ;
}

static int load_local_table(struct step *t, uint16_t selector)
{
	enum { LDT = 2 };
	struct x86_state *s = t->s;
	struct x86_segment_state table;
	uint64_t d[2];

	if (!(selector & 0xfffc)) {
		s->ldtr = (struct x86_segment_state){ .selector = selector };
		return 0;
	}
	if (selector & 4)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (insn_read_descriptor(t, selector, d, s->efer & EFER_LMA))
		return -EFAULT;
	table = insn_unpack_descriptor(selector, d);
	if ((table.attributes & 0x1f) != LDT || !soft_canonical(table.base))
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (!(table.attributes & SEGMENT_PRESENT))
		return soft_fail(t->fault, EXC_NP, true, selector & 0xfffc);
	s->ldtr = table;
	return 0;
}

static int load_task_register(struct step *t, uint16_t selector)
{
	enum { TSS_32 = 9, TSS_16 = 1, BUSY = 2, TYPE_BYTE = 5 };
	struct x86_state *s = t->s;
	struct x86_segment_state task;
	uint64_t d[2];
	unsigned type;
	uint8_t busy;

	if (!(selector & 0xfffc))
		return insn_general_protection(t);
	if (selector & 4)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (insn_read_descriptor(t, selector, d, s->efer & EFER_LMA))
		return -EFAULT;
	task = insn_unpack_descriptor(selector, d);
	type = task.attributes & 0x1f;
	if ((type != TSS_32 && (type != TSS_16 || s->efer & EFER_LMA)) ||
	    !soft_canonical(task.base) || d[1] >> 40 & 0x1f)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (!(task.attributes & SEGMENT_PRESENT))
		return soft_fail(t->fault, EXC_NP, true, selector & 0xfffc);
	task.attributes |= BUSY;
	busy = (uint8_t)task.attributes;
	if (soft_write(t->cpu, s->gdtr.base + (selector & 0xfff8) + TYPE_BYTE, &busy, 1,
		       ACCESS_SYSTEM, t->fault))
		return -EFAULT;
	s->tr = task;
	return 0;
}

int insn_system_segments(struct step *t)
{
	enum { SLDT, STR, LLDT, LTR, VERR, VERW };
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	uint64_t selector;

	if (insn_is_real(s))
		return insn_undefined(t);
	if (i->reg == SLDT || i->reg == STR) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return insn_general_protection(t);
		return insn_put_rm(t, i->mod == 3 ? i->operand_bytes : 2,
				   i->reg == STR ? s->tr.selector : s->ldtr.selector);
	}
	if ((i->reg == LLDT || i->reg == LTR) && s->cpl)
		return insn_general_protection(t);
	if (insn_get_rm(t, 2, &selector))
		return -EFAULT;
	switch (i->reg) {
	case LLDT: return load_local_table(t, (uint16_t)selector);
	case LTR: return load_task_register(t, (uint16_t)selector);
	case VERR:
	case VERW:
		insn_set_zero_flag(t, is_accessible(t, (uint16_t)selector, i->reg == VERW));
		return 0;
	default: return insn_undefined(t);
	}
}

/* Types that LAR and LSL know: SDM Vol. 2, tables 3-53 and 3-62. */
static bool is_known_to_lar(const struct x86_state *s, unsigned type, bool limit)
{
	const uint32_t legacy = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
	const uint32_t legacy_gates = 1u << 4 | 1u << 5 | 1u << 12;
	const uint32_t wide = 1u << 2 | 1u << 9 | 1u << 11;
	const uint32_t wide_gates = 1u << 12;

	if (type & SEGMENT_NOT_SYSTEM)
		return true;
	if (s->efer & EFER_LMA)
		return (wide | (limit ? 0 : wide_gates)) >> type & 1;
	return (legacy | (limit ? 0 : legacy_gates)) >> type & 1;
}

int insn_lar_lsl(struct step *t)
{
	enum { LAR = 2 };
	bool is_lar = t->i->opcode == LAR;
	bool good;
	struct x86_segment_state segment = { 0 };
	uint64_t selector, d[2];
	unsigned dpl;

	if (insn_is_real(t->s))
		return insn_undefined(t);
	if (insn_get_rm(t, 2, &selector))
		return -EFAULT;
	good = (selector & 0xfffc) && !insn_read_descriptor(t, (uint16_t)selector, d, false);
	if (good) {
		segment = insn_unpack_descriptor((uint16_t)selector, d);
		dpl = segment.attributes >> 5 & 3;
		good = is_known_to_lar(t->s, segment.attributes & 0x1f, !is_lar);
		if (!(insn_is_code(&segment) && segment.attributes & CODE_CONFORMING))
			good &= dpl >= (selector & 3) && dpl >= t->s->cpl;
	}
	if (good)
		insn_set_gpr(t, t->i->reg, is_lar ? d[0] >> 32 & 0xffff00 : segment.limit,
			     t->i->operand_bytes);
	insn_set_zero_flag(t, good);
	return 0;
}

int insn_fs_gs_base(struct step *t)
{
	unsigned bytes = t->i->rex_w ? 8 : 4;
	uint64_t *base = &t->s->segment[t->i->reg & 1 ? X86_GS : X86_FS].base;

	if (!(t->s->cr4 & CR4_FSGSBASE) || x86_code_bits(t->s) != 64)
		return insn_undefined(t);
	if (t->i->reg < 2) {
		insn_set_gpr(t, t->i->rm, *base, bytes);
		return 0;
	}
	if (bytes == 8 && !soft_canonical(t->s->gpr[t->i->rm]))
		return insn_general_protection(t);
	*base = bytes == 8 ? t->s->gpr[t->i->rm] : (uint32_t)t->s->gpr[t->i->rm];
	return 0;
}

int insn_swapgs(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t base = s->segment[X86_GS].base;

	if (s->cpl)
		return insn_general_protection(t);
	s->segment[X86_GS].base = s->kernel_gs_base;
	s->kernel_gs_base = base;
	return 0;
}

int insn_mov_from_segment(struct step *t)
{
	return insn_put_rm(t, t->i->mod == 3 ? t->i->operand_bytes : 2,
			   t->s->segment[t->i->reg & 7].selector);
}

int insn_mov_to_segment(struct step *t)
{
	unsigned which = t->i->reg & 7;
	uint64_t selector;

	if (which == X86_CS || which > X86_GS)
		return insn_undefined(t);
	if (insn_get_rm(t, 2, &selector) || insn_load_segment(t, which, (uint16_t)selector))
		return -EFAULT;
	if (which == X86_SS)
		soft_set_shadow(t->cpu, PENDING_MOV_SS_SHADOW);
	return 0;
}

int insn_pop_segment(struct step *t, unsigned which)
{
	uint64_t selector;

	if (insn_pop(t, &selector, insn_stack_bytes(t)))
		return -EFAULT;
	return insn_load_segment(t, which, (uint16_t)selector);
}
