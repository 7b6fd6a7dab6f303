/*
 * What segmentation and alignment checking say of an operand in memory (SDM Vol. 3A 5.3, 5.5, 6.15
 * #AC). Code for flat segments never comes here: the translator asks for a check where the mode of
 * a block says that one can fail (MODE_LIMITED, MODE_FS_LIMITED, MODE_GS_LIMITED, MODE_ALIGNED),
 * and operands in the code segment always.
 *
 * The operand of a copied instruction is checked before the instruction, which then runs in a block
 * of its own, unchecked (PENDING_CHECKED). What C executes checks its stack and its strings where
 * it accesses them.
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

enum { EXPANDS_DOWN = 4 };

/* Read and written at any offset. */
static bool is_unlimited(const struct x86_segment_state *segment)
{
	const uint16_t kind = SEGMENT_NOT_SYSTEM | SEGMENT_CODE | EXPANDS_DOWN | SEGMENT_PRESENT |
			      SEGMENT_WRITE_OR_READ;

	return segment->limit == ~0u &&
	       (segment->attributes & kind) ==
		       (SEGMENT_NOT_SYSTEM | SEGMENT_PRESENT | SEGMENT_WRITE_OR_READ);
}

uint32_t soft_limited_segments(const struct x86_state *state)
{
	static const uint8_t plain[] = { X86_ES, X86_SS, X86_DS };
	uint32_t mode = state->segment[X86_CS].limit == ~0u ? 0 : MODE_LIMITED;

	for (unsigned n = 0; n < sizeof(plain); n++)
		mode |= is_unlimited(&state->segment[plain[n]]) ? 0 : MODE_LIMITED;
	mode |= is_unlimited(&state->segment[X86_FS]) ? 0 : MODE_FS_LIMITED;
	return mode | (is_unlimited(&state->segment[X86_GS]) ? 0 : MODE_GS_LIMITED);
}

static int limit_fault(unsigned segment, struct fault *fault)
{
	return soft_fail(fault, segment == X86_SS ? EXC_SS : EXC_GP, true, 0);
}

bool soft_segment_holds(const struct x86_segment_state *segment, uint64_t offset, unsigned bytes)
{
	const uint16_t data_down = SEGMENT_NOT_SYSTEM | EXPANDS_DOWN;
	uint64_t last = offset + bytes - 1;
	uint64_t highest = segment->attributes & CODE_DB ? 0xffffffff : 0xffff;

	if ((segment->attributes & (data_down | SEGMENT_CODE)) == data_down)
		return offset > segment->limit && last <= highest;
	return last <= segment->limit;
}

int soft_check_segment(struct soft_cpu *cpu, unsigned segment, uint64_t offset, unsigned bytes,
		       bool write, struct fault *fault)
{
	const struct x86_state *cpu_state = &cpu->state;
	const struct x86_segment_state *state = &cpu_state->segment[segment];
	bool readable = !insn_is_code(state) || state->attributes & SEGMENT_WRITE_OR_READ;

	if (x86_code_bits(cpu_state) == 64) /* of other segments the walk says it, by #GP */
		return segment != X86_SS || soft_all_canonical(offset, bytes)
			       ? 0
			       : limit_fault(segment, fault);
	if (!insn_is_real(cpu_state)) {
		if (!(state->attributes & SEGMENT_PRESENT) || !readable ||
		    (write && !insn_is_writable(state)))
			return limit_fault(segment, fault);
	}
	return soft_segment_holds(state, offset, bytes) ? 0 : limit_fault(segment, fault);
}

bool soft_checks_alignment(const struct x86_state *state)
{
	return state->cpl == 3 && state->rflags & FLAG_AC && state->cr0 & CR0_AM;
}

int soft_check_alignment(struct soft_cpu *cpu, uint64_t gva, unsigned bytes, struct fault *fault)
{
	if (!soft_checks_alignment(&cpu->state) || !(gva & (bytes - 1)))
		return 0;
	return soft_fail(fault, EXC_AC, true, 0);
}

enum { EXTENDED_BYTES = 10, TABLE_REGISTER_BYTES = 6 };

/* SGDT, SIDT, LGDT, LIDT. */
static bool is_table_register(const struct x86_insn *insn)
{
	return !insn->kind && insn->map == 1 && insn->opcode == 1 && insn->reg < 4;
}

/* A pointer with a selector: LES and its kin, far jumps and calls. */
static bool is_far_pointer(const struct x86_insn *insn)
{
	if (insn->kind || insn->map > 1)
		return false;
	if (insn->map)
		return insn->opcode == 0xb2 || insn->opcode == 0xb4 || insn->opcode == 0xb5;
	return insn->opcode == 0xc4 || insn->opcode == 0xc5 ||
	       (insn->opcode == 0xff && (insn->reg == 3 || insn->reg == 5));
}

/* MOV of AL by an offset; the table does not say the width of such a MOV. */
static bool is_byte_by_offset(const struct x86_insn *insn)
{
	return insn->encoding.immediate == X86_IMM_MOFFS && !(insn->opcode & 1);
}

static unsigned operand_bytes(const struct x86_state *state, const struct x86_insn *insn)
{
	if (is_byte_by_offset(insn))
		return 1;
	if (is_table_register(insn) && x86_code_bits(state) != 64)
		return TABLE_REGISTER_BYTES;
	return insn->mem_bytes ? insn->mem_bytes : insn->operand_bytes;
}

/*
 * SDM Vol. 3A table 6-7: by the type of the data. What has no natural boundary is not checked: it
 * is larger than 16 bytes, or is checked by its own #GP (aligned vectors), or is unaligned on
 * purpose.
 */
static unsigned natural_bytes(const struct x86_state *state, const struct x86_insn *insn)
{
	enum { BOUND = 0x62 };
	unsigned bytes = operand_bytes(state, insn);

	if (is_table_register(insn))
		return 4;
	if (is_far_pointer(insn) || (!insn->kind && !insn->map && insn->opcode == BOUND))
		return insn->operand_bytes; /* of two parts */
	if (bytes == EXTENDED_BYTES) /* x87's extended real */
		return 8;
	return bytes > 8 || bytes & (bytes - 1) ? 1 : bytes;
}

/* MOV by an offset in the instruction: the table does not say which way it goes. */
static bool is_store_by_offset(const struct x86_insn *insn)
{
	enum { STORES = 2 };

	return insn->encoding.immediate == X86_IMM_MOFFS && insn->opcode & STORES;
}

/* BT and its kin with a register: bytes from the operand to the one that it reaches. */
static uint64_t bit_distance(const struct step *step)
{
	unsigned bits = 8u * step->insn->operand_bytes;
	uint64_t reg = step->state->gpr[step->insn->reg];
	int64_t index = step->insn->operand_bytes == 2 ? (int16_t)reg : (int32_t)reg;

	if (step->insn->operand_bytes == 8)
		index = (int64_t)reg;
	return (uint64_t)((index - (index & (bits - 1))) / 8);
}

int insn_check_operand(struct step *step)
{
	const struct x86_insn *insn = step->insn;
	uint64_t offset = soft_operand_offset(step->state, insn);
	bool write = x86_insn_is(insn, X86_ENC_MEM_WRITE) || is_store_by_offset(insn);

	if (insn->encoding.class == X86_CLASS_SCATTERED ||
	    x86_insn_is(insn, X86_ENC_ADDRESS_ONLY) || x86_insn_is_masked(insn))
		return 0;
	if (insn->encoding.class == X86_CLASS_BIT_STRING)
		offset += bit_distance(step);
	if (soft_check_segment(step->cpu, insn->segment,
			       offset & soft_address_mask(insn->address_bytes),
			       operand_bytes(step->state, insn), write, step->fault))
		return -EFAULT;
	return soft_check_alignment(
		step->cpu,
		soft_linear_address(step->state, insn->segment, offset, insn->address_bytes),
		natural_bytes(step->state, insn), step->fault);
}
