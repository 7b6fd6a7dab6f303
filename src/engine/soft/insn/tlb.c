/* Instructions that make the TLB drop something: INVLPG, INVPCID. */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

int insn_invlpg(struct step *t)
{
	if (t->s->cpl)
		return insn_general_protection(t);
	soft_flush_page(t->cpu, insn_address(t));
	return 0;
}

/*
 * INVPCID: entries are not kept apart by context, so that every type may drop more than it names.
 */
int insn_invpcid(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t descriptor[2];
	uint64_t kind = x86_code_bits(s) == 64 ? s->gpr[t->i->reg] : (uint32_t)s->gpr[t->i->reg];

	if (s->cpl || kind > 3)
		return insn_general_protection(t);
	if (soft_read(t->cpu, insn_address(t), descriptor, 16, ACCESS_READ, t->fault))
		return -EFAULT;
	if (descriptor[0] >> 12 || (kind < 2 && !(s->cr4 & CR4_PCIDE) && descriptor[0]) ||
	    (kind == 0 && !soft_canonical(descriptor[1])))
		return insn_general_protection(t);
	if (kind == 0)
		soft_flush_page(t->cpu, descriptor[1]);
	else
		soft_flush(t->cpu, kind == 2);
	return 0;
}
