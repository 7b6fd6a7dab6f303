/*
 * Control registers: MOV to and from CR0 to CR8 and the debug registers. What a write makes the TLB
 * drop is here and in invlpg.c.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum { TASK_PRIORITY_MASK = 15, DEBUG_REGISTERS = 8 };
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_KNOWN                                                                                \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

static bool uses_pae(const struct x86_state *state, uint64_t cr4)
{
	return state->cr0 & CR0_PG && cr4 & CR4_PAE && !(state->efer & EFER_LMA);
}

/* The entries of PAE are read again where one of some bits changes (SDM Vol. 3A 4.4.1). */
static int write_cr0(struct step *step, uint64_t value)
{
	const uint64_t pae_bits = CR0_CD | CR0_NW | CR0_PG;
	struct soft_cpu *cpu = step->cpu;
	struct x86_state *state = step->state;

	if (!(value >> 32))
		value &= CR0_KNOWN; /* the reserved ones below cannot be set */
	if ((value & CR0_NW && !(value & CR0_CD)) ||
	    (!(value & CR0_PG) && x86_code_bits(state) == 64))
		return insn_general_protection(step);
	if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) ||
	    (!(value & CR0_PG) && state->cr4 & CR4_PCIDE))
		return insn_general_protection(step);
	if (value & CR0_PG && !(state->cr0 & CR0_PG) && state->efer & EFER_LME &&
	    !(state->cr4 & CR4_PAE))
		return insn_general_protection(step);
	if (value & CR0_PG && (value ^ state->cr0) & pae_bits &&
	    !(state->efer & EFER_LME) && state->cr4 & CR4_PAE &&
	    !soft_load_pae_roots(cpu, state->cr3))
		return insn_general_protection(step);
	if (value & CR0_PG && !(state->cr0 & CR0_PG) && state->efer & EFER_LME)
		state->efer |= EFER_LMA;
	if (!(value & CR0_PG))
		state->efer &= ~(uint64_t)EFER_LMA;
	state->cr0 = value | CR0_ET;
	soft_change_mode(cpu, false);
	return 0;
}

static int write_cr3(struct step *step, uint64_t value)
{
	struct soft_cpu *cpu = step->cpu;
	struct x86_state *state = step->state;

	if (value & ~(state->cr4 & CR4_PCIDE ? 1ull << 63 : 0) & ~0ull << X86_PHYSICAL_BITS)
		return insn_general_protection(step);
	if (uses_pae(state, state->cr4) && !soft_load_pae_roots(cpu, value))
		return insn_general_protection(step);
	state->cr3 = value & ~(1ull << 63);
	soft_change_root(cpu, value >> 63);
	return 0;
}

static int write_cr4(struct step *step, uint64_t value)
{
	const uint64_t pae_bits = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
	struct soft_cpu *cpu = step->cpu;
	struct x86_state *state = step->state;
	uint64_t changed;

	if (value & ~(cpu->engine->model ? cpu->engine->model->cr4_valid : X86_CR4_KNOWN))
		return insn_general_protection(step);
	if (value & ~state->cr4 & CR4_PCIDE &&
	    (!(state->efer & EFER_LMA) || state->cr3 & PAGE_OFFSET_MASK))
		return insn_general_protection(step);
	if (state->efer & EFER_LMA && !(value & CR4_PAE))
		return insn_general_protection(step);
	if (uses_pae(state, value) && (value ^ state->cr4) & pae_bits &&
	    !soft_load_pae_roots(cpu, state->cr3))
		return insn_general_protection(step);
	changed = state->cr4 ^ value;
	state->cr4 = value;
	soft_change_mode(cpu, changed & CR4_PGE);
	return 0;
}

static int write_cr8(struct step *step, uint64_t value)
{
	struct soft_cpu *cpu = step->cpu;

	if (value & ~(uint64_t)TASK_PRIORITY_MASK)
		return insn_general_protection(step);
	soft_outside(cpu);
	cpu->ops->set_cr8(cpu->ops_context, value);
	soft_inside(cpu);
	return 0;
}

int insn_write_cr(struct step *step, unsigned cr, uint64_t value)
{
	switch (cr) {
	case 0: return write_cr0(step, value);
	case 2: step->state->cr2 = value; return 0;
	case 3: return write_cr3(step, value);
	case 4: return write_cr4(step, value);
	case 8: return write_cr8(step, value);
	default: return insn_undefined(step);
	}
}

static int read_cr(struct step *step, unsigned cr, uint64_t *ret)
{
	const struct x86_state *state = step->state;

	switch (cr) {
	case 0: *ret = state->cr0; return 0;
	case 2: *ret = state->cr2; return 0;
	case 3: *ret = state->cr3; return 0;
	case 4: *ret = state->cr4; return 0;
	case 8:
		soft_outside(step->cpu);
		*ret = step->cpu->ops->get_cr8(step->cpu->ops_context);
		soft_inside(step->cpu);
		return 0;
	default: return insn_undefined(step);
	}
}

static bool is_control_register(unsigned number)
{
	return number == 0 || number == 8 || (number >= 2 && number <= 4);
}

/* That there is no such register is found before the level is looked at (SDM Vol. 3A table 6-2). */
int insn_mov_control(struct step *step)
{
	const struct x86_insn *insn = step->insn;
	struct x86_state *state = step->state;
	unsigned bytes = x86_code_bits(state) == 64 ? 8 : 4;

	if (insn->opcode & 1 ? insn->reg >= DEBUG_REGISTERS : !is_control_register(insn->reg))
		return insn_undefined(step);
	if (state->cpl)
		return insn_general_protection(step);
	switch (insn->opcode) {
	case 0x20: {
		uint64_t value = 0;

		if (read_cr(step, insn->reg, &value))
			return -EFAULT;
		insn_set_gpr(step, insn->rm, value, bytes);
		return 0;
	}
	case 0x22:
		return insn_write_cr(step, insn->reg,
				     bytes == 8 ? state->gpr[insn->rm]
						: (uint32_t)state->gpr[insn->rm]);
	case 0x21: {
		uint64_t value;

		if (soft_read_dr(step->cpu, insn->reg, &value, step->fault))
			return -EFAULT;
		insn_set_gpr(step, insn->rm, value, bytes);
		return 0;
	}
	default:
		return soft_write_dr(step->cpu, insn->reg,
				     bytes == 8 ? state->gpr[insn->rm]
						: (uint32_t)state->gpr[insn->rm],
				     step->fault);
	}
}

int insn_smsw(struct step *step)
{
	if (step->state->cpl && step->state->cr4 & CR4_UMIP)
		return insn_general_protection(step);
	return insn_put_rm(step, step->insn->mod == 3 ? step->insn->operand_bytes : 2,
			   step->state->cr0);
}

int insn_lmsw(struct step *step)
{
	/* PE can be set, not cleared */
	const uint64_t pe_mp_em_ts = 15;
	const uint64_t mp_em_ts = 14;
	uint64_t value;

	if (step->state->cpl)
		return insn_general_protection(step);
	if (insn_get_rm(step, 2, &value))
		return -EFAULT;
	return insn_write_cr(step, 0, (step->state->cr0 & ~mp_em_ts) | (value & pe_mp_em_ts));
}

int insn_clts(struct step *step)
{
	if (step->state->cpl)
		return insn_general_protection(step);
	step->state->cr0 &= ~(uint64_t)CR0_TS;
	return 0;
}
