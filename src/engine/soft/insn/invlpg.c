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

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_LOCALS };

int insn_invpcid(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t descriptor[2];
	uint64_t kind = x86_code_bits(s) == 64 ? s->gpr[t->i->reg] : (uint32_t)s->gpr[t->i->reg];

	if (s->cpl || kind > INVPCID_LOCALS)
		return insn_general_protection(t);
	if (soft_read(t->cpu, insn_address(t), descriptor, 16, ACCESS_READ, t->fault))
		return -EFAULT;
	if (descriptor[0] >> 12 ||
	    (kind <= INVPCID_CONTEXT && !(s->cr4 & CR4_PCIDE) && descriptor[0]) ||
	    (kind == INVPCID_ADDRESS && !soft_canonical(descriptor[1])))
		return insn_general_protection(t);
	switch (kind) {
	case INVPCID_ADDRESS:
		soft_flush_page_of_pcid(t->cpu, descriptor[1], (uint16_t)descriptor[0]);
		return 0;
	case INVPCID_CONTEXT: soft_flush_pcid(t->cpu, (uint16_t)descriptor[0]); return 0;
	default: soft_flush(t->cpu, kind == INVPCID_ALL); return 0;
	}
}
