/* Instructions that make the TLB drop something: INVLPG, INVPCID. */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

int insn_invlpg(struct step *step)
{
	if (step->state->cpl)
		return insn_general_protection(step);
	soft_flush_page(step->cpu, insn_address(step));
	return 0;
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_LOCALS };

int insn_invpcid(struct step *step)
{
	struct x86_state *state = step->state;
	uint64_t descriptor[2];
	uint64_t kind = x86_code_bits(state) == 64 ? state->gpr[step->insn->reg]
						   : (uint32_t)state->gpr[step->insn->reg];

	if (state->cpl || kind > INVPCID_LOCALS)
		return insn_general_protection(step);
	if (soft_read(step->cpu, insn_address(step), descriptor, 16, ACCESS_READ, step->fault))
		return -EFAULT;
	if (descriptor[0] >> 12 ||
	    (kind <= INVPCID_CONTEXT && !(state->cr4 & CR4_PCIDE) && descriptor[0]) ||
	    (kind == INVPCID_ADDRESS && !soft_canonical(descriptor[1])))
		return insn_general_protection(step);
	switch (kind) {
	case INVPCID_ADDRESS:
		soft_flush_page_of_pcid(step->cpu, descriptor[1], (uint16_t)descriptor[0]);
		return 0;
	case INVPCID_CONTEXT: soft_flush_pcid(step->cpu, (uint16_t)descriptor[0]); return 0;
	default: soft_flush(step->cpu, kind == INVPCID_ALL); return 0;
	}
}
