/*
 * RFLAGS: PUSHF and POPF, and the instructions that set one flag that translated code does not hold
 * itself.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

void insn_set_zero_flag(struct step *step, bool set)
{
	const uint64_t in_word = FLAG_ZF << 8;

	step->cpu->flags_word =
		set ? step->cpu->flags_word | in_word : step->cpu->flags_word & ~in_word;
}

int insn_push_pop_flags(struct step *step)
{
	struct x86_state *state = step->state;
	unsigned bytes = insn_stack_bytes(step);
	uint64_t value;
	uint64_t keep = FLAG_VM | 0x180000;

	if (insn_is_virtual(state) && (state->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(step);
	if (step->insn->opcode == 0x9c)
		return insn_push(step, soft_rflags(step->cpu) & ~(uint64_t)(FLAG_RF | FLAG_VM),
				 bytes);
	if (insn_pop(step, &value, bytes))
		return -EFAULT;
	if (state->cpl)
		keep |= FLAG_IOPL;
	if (state->cpl > insn_iopl(state))
		keep |= FLAG_IF;
	if (bytes == 2)
		keep |= ~0xffffull;
	soft_set_rflags(step->cpu,
			((value & ~keep) | (soft_rflags(step->cpu) & keep)) & ~(uint64_t)FLAG_RF);
	soft_select_view(step->cpu);
	return 0;
}

int insn_set_interrupt_flag(struct step *step, bool set)
{
	struct x86_state *state = step->state;

	if (state->cpl > insn_iopl(state))
		return insn_general_protection(step);
	if (set && !step->cpu->interrupt_flag)
		soft_set_shadow(step->cpu, PENDING_STI_SHADOW);
	step->cpu->interrupt_flag = set;
	return 0;
}

int insn_set_alignment_check(struct step *step, bool set)
{
	struct x86_state *state = step->state;

	if (state->cpl)
		return insn_undefined(step);
	state->rflags = set ? state->rflags | FLAG_AC : state->rflags & ~(uint64_t)FLAG_AC;
	soft_select_view(step->cpu);
	return 0;
}

int insn_set_direction(struct step *step, bool set)
{
	step->state->rflags =
		set ? step->state->rflags | FLAG_DF : step->state->rflags & ~(uint64_t)FLAG_DF;
	return 0;
}
