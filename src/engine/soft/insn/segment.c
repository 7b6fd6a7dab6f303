/* Segments: descriptors, loads of segment registers, the tables' own registers, FS and GS bases. */
#include <assert.h>
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

void soft_set_code_segment(struct x86_state *state, uint16_t selector, uint16_t attributes)
{
	state->segment[X86_CS] = (struct x86_segment_state){ .selector = selector,
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

int insn_read_descriptor(struct step *step, uint16_t selector, uint64_t ret[2], bool wide)
{
	const struct x86_state *state = step->state;
	uint64_t base = selector & 4 ? state->ldtr.base : state->gdtr.base;
	uint64_t limit = selector & 4 ? state->ldtr.limit : state->gdtr.limit;

	ret[1] = 0;
	if ((selector & 0xfff8u) + (wide ? 15u : 7u) > limit)
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	return soft_read(step->cpu, base + (selector & 0xfff8), ret, wide ? 16 : 8,
			 ACCESS_SYSTEM | ACCESS_READ, step->fault);
}

struct x86_segment_state insn_unpack_descriptor(uint16_t selector, const uint64_t descriptor[2])
{
	struct x86_segment_state segment = { .selector = selector,
					     .attributes =
						     (uint16_t)(descriptor[0] >> 40) & 0xf0ff };

	segment.base = (descriptor[0] >> 16 & 0xffffff) | (descriptor[0] >> 32 & 0xff000000) |
		       descriptor[1] << 32;
	segment.limit = (uint32_t)((descriptor[0] & 0xffff) | (descriptor[0] >> 32 & 0xf0000));
	if (segment.attributes & 0x8000)
		segment.limit = segment.limit << 12 | PAGE_OFFSET_MASK;
	return segment;
}

int insn_mark_accessed(struct step *step, uint16_t selector, const uint64_t descriptor[2])
{
	enum { TYPE_BYTE = 5 };
	uint64_t table = selector & 4 ? step->state->ldtr.base : step->state->gdtr.base;
	uint8_t type = (uint8_t)(descriptor[0] >> 8 * TYPE_BYTE);

	assert(selector & 0xfffc); /* a null selector names none */
	if (type & SEGMENT_ACCESSED)
		return 0;
	type |= SEGMENT_ACCESSED;
	return soft_write(step->cpu, table + (selector & 0xfff8) + TYPE_BYTE, &type, 1,
			  ACCESS_SYSTEM, step->fault);
}

static void load_null_segment(struct x86_state *state, unsigned which, uint16_t selector)
{
	/* AMD keeps base and limit of a nulled segment; so do we: FS and GS bases are set by MSR */
	state->segment[which].selector = selector;
	state->segment[which].attributes = 0;
	if (which != X86_FS && which != X86_GS)
		state->segment[which].base = 0;
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

int insn_load_segment(struct step *step, unsigned which, uint16_t selector)
{
	struct x86_state *state = step->state;
	struct x86_segment_state segment;
	uint64_t descriptor[2];

	assert(which < X86_SEGMENTS && which != X86_CS); /* which only transfers load */
	if (insn_is_virtual(state)) {
		state->segment[which] = insn_virtual_segment(selector);
		return 0;
	}
	if (!(state->cr0 & CR0_PE)) { /* what a descriptor left as limit and attributes stays */
		state->segment[which].selector = selector;
		state->segment[which].base = (uint64_t)selector << 4;
		return 0;
	}
	if (!(selector & 0xfffc)) {
		if (which == X86_SS &&
		    (x86_code_bits(state) != 64 || state->cpl == 3 || (selector & 3) != state->cpl))
			return insn_general_protection(step);
		load_null_segment(state, which, selector);
		return 0;
	}
	if (insn_read_descriptor(step, selector, descriptor, false))
		return -EFAULT;
	segment = insn_unpack_descriptor(selector, descriptor);
	if (!is_loadable(&segment, which, state->cpl))
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	if (!(segment.attributes & SEGMENT_PRESENT))
		return soft_fail(step->fault, which == X86_SS ? EXC_SS : EXC_NP, true,
				 selector & 0xfffc);
	if (insn_mark_accessed(step, selector, descriptor))
		return -EFAULT;
	state->segment[which] = segment;
	return 0;
}

int insn_descriptor_tables(struct step *step)
{
	const struct x86_insn *insn = step->insn;
	struct x86_state *state = step->state;
	unsigned base_bytes = x86_code_bits(state) == 64 ? 8 : 4;
	struct x86_table *table = insn->reg & 1 ? &state->idtr : &state->gdtr;
	uint8_t image[10] = { 0 };
	uint64_t base = 0;

	if (insn->reg < 2) {
		if (state->cpl && state->cr4 & CR4_UMIP)
			return insn_general_protection(step);
		memcpy(image, &table->limit, 2);
		memcpy(image + 2, &table->base, 8);
		return soft_write(step->cpu, insn_address(step), image, 2 + base_bytes, 0,
				  step->fault);
	}
	if (state->cpl)
		return insn_general_protection(step);
	if (soft_read(step->cpu, insn_address(step), image, 2 + base_bytes, ACCESS_READ,
		      step->fault))
		return -EFAULT;
	memcpy(&base, image + 2,
	       insn->operand_bytes == 2 && x86_code_bits(state) != 64 ? 3 : base_bytes);
	if (!soft_canonical(base))
		return insn_general_protection(step);
	table->base = base;
	memcpy(&table->limit, image, 2);
	return 0;
}

/* VERR, VERW: whether the segment could be read or written. No fault of the selector's. */
static bool is_accessible(struct step *step, uint16_t selector, bool write)
{
	struct x86_segment_state segment;
	unsigned rpl = selector & 3;
	unsigned dpl;
	uint64_t descriptor[2];

	if (!(selector & 0xfffc) || insn_read_descriptor(step, selector, descriptor, false))
		return false;
	segment = insn_unpack_descriptor(selector, descriptor);
	dpl = segment.attributes >> 5 & 3;
	if (!(segment.attributes & SEGMENT_NOT_SYSTEM))
		return false;
	if (!(insn_is_code(&segment) && segment.attributes & CODE_CONFORMING) &&
	    (dpl < rpl || dpl < step->state->cpl))
		return false;
	return write ? insn_is_writable(&segment)
		     : !insn_is_code(&segment) || segment.attributes & SEGMENT_WRITE_OR_READ;
}

static int load_local_table(struct step *step, uint16_t selector)
{
	enum { LDT = 2 };
	struct x86_state *state = step->state;
	struct x86_segment_state table;
	uint64_t descriptor[2];

	if (!(selector & 0xfffc)) {
		state->ldtr = (struct x86_segment_state){ .selector = selector };
		return 0;
	}
	if (selector & 4)
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	if (insn_read_descriptor(step, selector, descriptor, state->efer & EFER_LMA))
		return -EFAULT;
	table = insn_unpack_descriptor(selector, descriptor);
	if ((table.attributes & 0x1f) != LDT || !soft_canonical(table.base))
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	if (!(table.attributes & SEGMENT_PRESENT))
		return soft_fail(step->fault, EXC_NP, true, selector & 0xfffc);
	state->ldtr = table;
	return 0;
}

static int load_task_register(struct step *step, uint16_t selector)
{
	enum { TSS_32 = 9, TSS_16 = 1, BUSY = 2, TYPE_BYTE = 5 };
	struct x86_state *state = step->state;
	struct x86_segment_state task;
	uint64_t descriptor[2];
	unsigned type;
	uint8_t busy;

	if (!(selector & 0xfffc))
		return insn_general_protection(step);
	if (selector & 4)
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	if (insn_read_descriptor(step, selector, descriptor, state->efer & EFER_LMA))
		return -EFAULT;
	task = insn_unpack_descriptor(selector, descriptor);
	type = task.attributes & 0x1f;
	if ((type != TSS_32 && (type != TSS_16 || state->efer & EFER_LMA)) ||
	    !soft_canonical(task.base) || descriptor[1] >> 40 & 0x1f)
		return soft_fail(step->fault, EXC_GP, true, selector & 0xfffc);
	if (!(task.attributes & SEGMENT_PRESENT))
		return soft_fail(step->fault, EXC_NP, true, selector & 0xfffc);
	task.attributes |= BUSY;
	busy = (uint8_t)task.attributes;
	if (soft_write(step->cpu, state->gdtr.base + (selector & 0xfff8) + TYPE_BYTE, &busy, 1,
		       ACCESS_SYSTEM, step->fault))
		return -EFAULT;
	state->tr = task;
	return 0;
}

int insn_system_segments(struct step *step)
{
	enum { SLDT, STR, LLDT, LTR, VERR, VERW };
	const struct x86_insn *insn = step->insn;
	struct x86_state *state = step->state;
	uint64_t selector;

	if (insn_is_real(state))
		return insn_undefined(step);
	if (insn->reg == SLDT || insn->reg == STR) {
		if (state->cpl && state->cr4 & CR4_UMIP)
			return insn_general_protection(step);
		return insn_put_rm(step, insn->mod == 3 ? insn->operand_bytes : 2,
				   insn->reg == STR ? state->tr.selector : state->ldtr.selector);
	}
	if ((insn->reg == LLDT || insn->reg == LTR) && state->cpl)
		return insn_general_protection(step);
	if (insn_get_rm(step, 2, &selector))
		return -EFAULT;
	switch (insn->reg) {
	case LLDT: return load_local_table(step, (uint16_t)selector);
	case LTR: return load_task_register(step, (uint16_t)selector);
	case VERR:
	case VERW:
		insn_set_zero_flag(step,
				   is_accessible(step, (uint16_t)selector, insn->reg == VERW));
		return 0;
	default: return insn_undefined(step);
	}
}

/* Types that LAR and LSL know: SDM Vol. 2, tables 3-53 and 3-62. */
static bool is_known_to_lar(const struct x86_state *state, unsigned type, bool limit)
{
	const uint32_t legacy = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
	const uint32_t legacy_gates = 1u << 4 | 1u << 5 | 1u << 12;
	const uint32_t wide = 1u << 2 | 1u << 9 | 1u << 11;
	const uint32_t wide_gates = 1u << 12;

	if (type & SEGMENT_NOT_SYSTEM)
		return true;
	if (state->efer & EFER_LMA)
		return (wide | (limit ? 0 : wide_gates)) >> type & 1;
	return (legacy | (limit ? 0 : legacy_gates)) >> type & 1;
}

int insn_lar_lsl(struct step *step)
{
	enum { LAR = 2 };
	bool is_lar = step->insn->opcode == LAR;
	bool good;
	struct x86_segment_state segment = { 0 };
	uint64_t selector, descriptor[2];
	unsigned dpl;

	if (insn_is_real(step->state))
		return insn_undefined(step);
	if (insn_get_rm(step, 2, &selector))
		return -EFAULT;
	good = (selector & 0xfffc) &&
	       !insn_read_descriptor(step, (uint16_t)selector, descriptor, false);
	if (good) {
		segment = insn_unpack_descriptor((uint16_t)selector, descriptor);
		dpl = segment.attributes >> 5 & 3;
		good = is_known_to_lar(step->state, segment.attributes & 0x1f, !is_lar);
		if (!(insn_is_code(&segment) && segment.attributes & CODE_CONFORMING))
			good &= dpl >= (selector & 3) && dpl >= step->state->cpl;
	}
	if (good)
		insn_set_gpr(step, step->insn->reg,
			     is_lar ? descriptor[0] >> 32 & 0xffff00 : segment.limit,
			     step->insn->operand_bytes);
	insn_set_zero_flag(step, good);
	return 0;
}

int insn_fs_gs_base(struct step *step)
{
	unsigned bytes = step->insn->rex_w ? 8 : 4;
	uint64_t *base = &step->state->segment[step->insn->reg & 1 ? X86_GS : X86_FS].base;

	if (!(step->state->cr4 & CR4_FSGSBASE) || x86_code_bits(step->state) != 64)
		return insn_undefined(step);
	if (step->insn->reg < 2) {
		insn_set_gpr(step, step->insn->rm, *base, bytes);
		return 0;
	}
	if (bytes == 8 && !soft_canonical(step->state->gpr[step->insn->rm]))
		return insn_general_protection(step);
	*base = bytes == 8 ? step->state->gpr[step->insn->rm]
			   : (uint32_t)step->state->gpr[step->insn->rm];
	return 0;
}

int insn_swapgs(struct step *step)
{
	struct x86_state *state = step->state;
	uint64_t base = state->segment[X86_GS].base;

	if (state->cpl)
		return insn_general_protection(step);
	state->segment[X86_GS].base = state->kernel_gs_base;
	state->kernel_gs_base = base;
	return 0;
}

int insn_mov_from_segment(struct step *step)
{
	return insn_put_rm(step, step->insn->mod == 3 ? step->insn->operand_bytes : 2,
			   step->state->segment[step->insn->reg & 7].selector);
}

int insn_mov_to_segment(struct step *step)
{
	unsigned which = step->insn->reg & 7;
	uint64_t selector;

	if (which == X86_CS || which > X86_GS)
		return insn_undefined(step);
	if (insn_get_rm(step, 2, &selector) || insn_load_segment(step, which, (uint16_t)selector))
		return -EFAULT;
	if (which == X86_SS)
		soft_set_shadow(step->cpu, PENDING_MOV_SS_SHADOW);
	return 0;
}

int insn_pop_segment(struct step *step, unsigned which)
{
	uint64_t selector;

	if (insn_pop(step, &selector, insn_stack_bytes(step)))
		return -EFAULT;
	return insn_load_segment(step, which, (uint16_t)selector);
}
