/*
 * Control registers: MOV to and from CR0 to CR8 and the debug registers. What a write makes the TLB
 * drop is here and in invlpg.c.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum { TASK_PRIORITY_MASK = 15, DEBUG_REGISTERS = 8 };

static bool uses_pae(const struct x86_state *s, uint64_t cr4)
{
	return s->cr0 & CR0_PG && cr4 & CR4_PAE && !(s->efer & EFER_LMA);
}

int insn_write_cr(struct step *t, unsigned cr, uint64_t v)
{
	/* the entries of PAE are read again where one of these changes (SDM Vol. 3A 4.4.1) */
	const uint64_t pae_bits = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;
	uint64_t changed;

	switch (cr) {
	case 0:
		if ((v & CR0_NW && !(v & CR0_CD)) || (!(v & CR0_PG) && x86_code_bits(s) == 64))
			return insn_general_protection(t);
		if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) ||
		    (!(v & CR0_PG) && s->cr4 & CR4_PCIDE))
			return insn_general_protection(t);
		if (v & CR0_PG && !(s->cr0 & CR0_PG) && s->efer & EFER_LME && !(s->cr4 & CR4_PAE))
			return insn_general_protection(t);
		if (v & CR0_PG && !(s->cr0 & CR0_PG) && !(s->efer & EFER_LME) && s->cr4 & CR4_PAE &&
		    !soft_load_pae_roots(cpu, s->cr3))
			return insn_general_protection(t);
		if (v & CR0_PG && !(s->cr0 & CR0_PG) && s->efer & EFER_LME)
			s->efer |= EFER_LMA;
		if (!(v & CR0_PG))
			s->efer &= ~(uint64_t)EFER_LMA;
		s->cr0 = v | 0x10;
		soft_change_mode(cpu, false);
		return 0;
	case 2: s->cr2 = v; return 0;
	case 3:
		if (v & ~(s->cr4 & CR4_PCIDE ? 1ull << 63 : 0) & ~0ull << X86_PHYSICAL_BITS)
			return insn_general_protection(t);
		if (uses_pae(s, s->cr4) && !soft_load_pae_roots(cpu, v))
			return insn_general_protection(t);
		s->cr3 = v & ~(1ull << 63);
		soft_change_root(cpu, v >> 63);
		return 0;
	case 4:
		if (v & ~(cpu->engine->model ? cpu->engine->model->cr4_valid : X86_CR4_KNOWN))
			return insn_general_protection(t);
		if (v & ~s->cr4 & CR4_PCIDE && (!(s->efer & EFER_LMA) || s->cr3 & PAGE_OFFSET_MASK))
			return insn_general_protection(t);
		if (s->efer & EFER_LMA && !(v & CR4_PAE))
			return insn_general_protection(t);
		if (uses_pae(s, v) && (v ^ s->cr4) & pae_bits &&
		    !soft_load_pae_roots(cpu, s->cr3))
			return insn_general_protection(t);
		changed = s->cr4 ^ v;
		s->cr4 = v;
		soft_change_mode(cpu, changed & CR4_PGE);
		return 0;
	case 8:
		if (v & ~(uint64_t)TASK_PRIORITY_MASK)
			return insn_general_protection(t);
		soft_outside(cpu);
		cpu->ops->set_cr8(cpu->ops_context, v);
		soft_inside(cpu);
		return 0;
	default: return insn_undefined(t);
	}
}

static int read_cr(struct step *t, unsigned cr, uint64_t *ret)
{
	const struct x86_state *s = t->s;

	switch (cr) {
	case 0: *ret = s->cr0; return 0;
	case 2: *ret = s->cr2; return 0;
	case 3: *ret = s->cr3; return 0;
	case 4: *ret = s->cr4; return 0;
	case 8:
		soft_outside(t->cpu);
		*ret = t->cpu->ops->get_cr8(t->cpu->ops_context);
		soft_inside(t->cpu);
		return 0;
	default: return insn_undefined(t);
	}
}

int insn_mov_control(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned bytes = x86_code_bits(s) == 64 ? 8 : 4;

	if (i->opcode & 1 && i->reg >= DEBUG_REGISTERS)
		return insn_undefined(t);
	if (s->cpl)
		return insn_general_protection(t);
	switch (i->opcode) {
	case 0x20: {
		uint64_t v = 0;

		if (read_cr(t, i->reg, &v))
			return -EFAULT;
		insn_set_gpr(t, i->rm, v, bytes);
		return 0;
	}
	case 0x22:
		return insn_write_cr(t, i->reg,
				     bytes == 8 ? s->gpr[i->rm] : (uint32_t)s->gpr[i->rm]);
	case 0x21: {
		uint64_t v;

		if (soft_read_dr(t->cpu, i->reg, &v, t->fault))
			return -EFAULT;
		insn_set_gpr(t, i->rm, v, bytes);
		return 0;
	}
	default:
		return soft_write_dr(t->cpu, i->reg,
				     bytes == 8 ? s->gpr[i->rm] : (uint32_t)s->gpr[i->rm],
				     t->fault);
	}
}

int insn_smsw(struct step *t)
{
	if (t->s->cpl && t->s->cr4 & CR4_UMIP)
		return insn_general_protection(t);
	return insn_put_rm(t, t->i->mod == 3 ? t->i->operand_bytes : 2, t->s->cr0);
}

int insn_lmsw(struct step *t)
{
	/* PE can be set, not cleared */
	const uint64_t pe_mp_em_ts = 15;
	const uint64_t mp_em_ts = 14;
	uint64_t v;

	if (t->s->cpl)
		return insn_general_protection(t);
	if (insn_get_rm(t, 2, &v))
		return -EFAULT;
	return insn_write_cr(t, 0, (t->s->cr0 & ~mp_em_ts) | (v & pe_mp_em_ts));
}

int insn_clts(struct step *t)
{
	if (t->s->cpl)
		return insn_general_protection(t);
	t->s->cr0 &= ~(uint64_t)CR0_TS;
	return 0;
}
