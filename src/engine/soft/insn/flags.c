/*
 * RFLAGS: PUSHF and POPF, and the instructions that set one flag that translated code does not hold
 * itself.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

void insn_set_zero_flag(struct step *t, bool set)
{
	const uint64_t in_word = FLAG_ZF << 8;

	t->cpu->flags_word = set ? t->cpu->flags_word | in_word : t->cpu->flags_word & ~in_word;
}

int insn_push_pop_flags(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = insn_stack_bytes(t);
	uint64_t v;
	uint64_t keep = FLAG_VM | 0x180000;

	if (insn_is_virtual(s) && (s->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(t);
	if (t->i->opcode == 0x9c)
		return insn_push(t, soft_rflags(t->cpu) & ~(uint64_t)(FLAG_RF | FLAG_VM), bytes);
	if (insn_pop(t, &v, bytes))
		return -EFAULT;
	if (s->cpl)
		keep |= FLAG_IOPL;
	if (s->cpl > insn_iopl(s))
		keep |= FLAG_IF;
	if (bytes == 2)
		keep |= ~0xffffull;
	soft_set_rflags(t->cpu, ((v & ~keep) | (soft_rflags(t->cpu) & keep)) & ~(uint64_t)FLAG_RF);
	soft_select_view(t->cpu);
	return 0;
}

int insn_set_interrupt_flag(struct step *t, bool set)
{
	struct x86_state *s = t->s;

	if (s->cpl > insn_iopl(s))
		return insn_general_protection(t);
	if (set && !t->cpu->interrupt_flag)
		soft_set_shadow(t->cpu, PENDING_STI_SHADOW);
	t->cpu->interrupt_flag = set;
	return 0;
}

int insn_set_alignment_check(struct step *t, bool set)
{
	struct x86_state *s = t->s;

	if (s->cpl)
		return insn_undefined(t);
	s->rflags = set ? s->rflags | FLAG_AC : s->rflags & ~(uint64_t)FLAG_AC;
	soft_select_view(t->cpu);
	return 0;
}

int insn_set_direction(struct step *t, bool set)
{
	t->s->rflags = set ? t->s->rflags | FLAG_DF : t->s->rflags & ~(uint64_t)FLAG_DF;
	return 0;
}
