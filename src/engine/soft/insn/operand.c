/*
 * Operands of the instructions that are left to C: addresses, registers and memory of a ModRM byte.
 */
#include <assert.h>
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

uint64_t insn_address(const struct step *step)
{
	return soft_operand_address(step->state, step->insn);
}

int insn_get_rm(struct step *step, unsigned bytes, uint64_t *ret)
{
	assert(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
	*ret = 0;
	if (x86_insn_has_memory(step->insn))
		return soft_read(step->cpu, insn_address(step), ret, bytes, ACCESS_READ,
				 step->fault);
	*ret = bytes == 8 ? step->state->gpr[step->insn->rm]
			  : step->state->gpr[step->insn->rm] & ((1ull << 8 * bytes) - 1);
	return 0;
}

int insn_get_far_pointer(struct step *step, uint64_t *ret_offset, uint16_t *ret_selector,
			 unsigned *ret_bytes)
{
	const unsigned bytes = step->insn->rex_w ? 8 : step->insn->operand_bytes;
	uint64_t selector = 0;

	assert(bytes == 2 || bytes == 4 || bytes == 8);
	*ret_offset = 0;
	*ret_bytes = bytes;
	if (!x86_insn_has_memory(step->insn))
		return insn_undefined(step);
	if (soft_read(step->cpu, insn_address(step), ret_offset, bytes, ACCESS_READ, step->fault) ||
	    soft_read(step->cpu, insn_address(step) + bytes, &selector, 2, ACCESS_READ,
		      step->fault))
		return -EFAULT;
	*ret_selector = (uint16_t)selector;
	return 0;
}

void insn_set_gpr(struct step *step, unsigned reg, uint64_t value, unsigned bytes)
{
	uint64_t *gpr = &step->state->gpr[reg];

	assert(reg < sizeof(step->state->gpr) / sizeof(step->state->gpr[0]));
	assert(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
	switch (bytes) {
	case 8: *gpr = value; return;
	case 4: *gpr = (uint32_t)value; return;
	case 2: *gpr = (*gpr & ~0xffffull) | (value & 0xffff); return;
	default: *gpr = (*gpr & ~0xffull) | (value & 0xff); return;
	}
}

int insn_put_rm(struct step *step, unsigned bytes, uint64_t value)
{
	assert(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
	if (x86_insn_has_memory(step->insn))
		return soft_write(step->cpu, insn_address(step), &value, bytes, 0, step->fault);
	insn_set_gpr(step, step->insn->rm, value, bytes);
	return 0;
}
