/*
 * Model-specific registers and the time stamp counter. What the engine does not keep itself is
 * asked of engine_ops.
 */
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum { MSR_TSC_ADJUST = 0x3b };

static uint64_t host_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static uint64_t *plain_msr(struct x86_state *state, uint32_t msr)
{
	switch (msr) {
	case 0x174: return &state->sysenter_cs;
	case 0x175: return &state->sysenter_esp;
	case 0x176: return &state->sysenter_eip;
	case 0x277: return &state->pat;
	case 0xc0000081: return &state->star;
	case 0xc0000082: return &state->lstar;
	case 0xc0000083: return &state->cstar;
	case 0xc0000084: return &state->sfmask;
	case 0xc0000100: return &state->segment[X86_FS].base;
	case 0xc0000101: return &state->segment[X86_GS].base;
	case 0xc0000102: return &state->kernel_gs_base;
	case 0xc0000103: return &state->tsc_aux;
	default: return NULL;
	}
}

/* Eight memory types: 0, 1, 4 to 7 (SDM Vol. 3A 12.12.2). */
static bool is_memory_types(uint64_t value)
{
	enum { TYPES = 8 };

	for (unsigned n = 0; n < TYPES; n++, value >>= 8)
		if ((value & 0xff) >= TYPES || (value & 0xff) == 2 || (value & 0xff) == 3)
			return false;
	return true;
}

/* Whether one of plain_msr() takes it. */
static bool may_be_written(uint32_t msr, uint64_t value)
{
	switch (msr) {
	case 0x175:
	case 0x176:
	case 0xc0000082:
	case 0xc0000083:
	case 0xc0000100 ... 0xc0000102: return soft_canonical(value);
	case 0x277: return is_memory_types(value);
	default: return true;
	}
}

/* IA32_TSC_ADJUST moves with every write of the counter, and a write of it moves the counter. */
static bool has_tsc_adjust(const struct step *step, uint32_t msr)
{
	const struct cpu_model *model = step->cpu->engine->model;

	return msr == MSR_TSC_ADJUST && (!model || cpu_has(&model->features, CPU_TSC_ADJUST));
}

static void move_tsc(struct x86_state *state, uint64_t by)
{
	state->tsc_offset += by;
	state->tsc_adjust += by;
}

int insn_access_msr(struct step *step, bool write)
{
	struct x86_state *state = step->state;
	uint32_t msr = (uint32_t)state->gpr[1];
	uint64_t value = state->gpr[2] << 32 | (uint32_t)state->gpr[0];
	uint64_t *plain = plain_msr(state, msr);
	int error;

	if (state->cpl)
		return insn_general_protection(step);
	if (write && plain) {
		if (!may_be_written(msr, value))
			return insn_general_protection(step);
		*plain = value;
		return 0;
	}
	if (write && msr == 0xc0000080) {
		if (value & ~(step->cpu->engine->model ? step->cpu->engine->model->efer_valid
						       : X86_EFER_KNOWN))
			return insn_general_protection(step);
		if (state->cr0 & CR0_PG && (value ^ state->efer) & EFER_LME)
			return insn_general_protection(step);
		state->efer = (value & ~(uint64_t)EFER_LMA) | (state->efer & EFER_LMA);
		soft_change_mode(step->cpu, false);
		return 0;
	}
	if (write && msr == 0x10) {
		move_tsc(state, value - (host_tsc() + state->tsc_offset));
		return 0;
	}
	if (write && has_tsc_adjust(step, msr)) {
		move_tsc(state, value - state->tsc_adjust);
		return 0;
	}
	if (!write && plain)
		value = *plain;
	else if (!write && msr == 0xc0000080)
		value = state->efer;
	else if (!write && msr == 0x10)
		value = host_tsc() + state->tsc_offset;
	else if (!write && has_tsc_adjust(step, msr))
		value = state->tsc_adjust;
	else {
		soft_outside(step->cpu);
		error = write ? step->cpu->ops->msr_write(step->cpu->ops_context, msr, value)
			      : step->cpu->ops->msr_read(step->cpu->ops_context, msr, &value);
		soft_inside(step->cpu);
		if (error)
			return insn_general_protection(step);
	}
	if (!write) {
		state->gpr[0] = (uint32_t)value;
		state->gpr[2] = value >> 32;
	}
	return 0;
}

int insn_rdtscp(struct step *step)
{
	uint64_t tsc = host_tsc() + step->state->tsc_offset;

	step->state->gpr[0] = (uint32_t)tsc;
	step->state->gpr[2] = tsc >> 32;
	step->state->gpr[1] = (uint32_t)step->state->tsc_aux;
	return 0;
}

/*
 * No model has a performance monitor. AMD's processors have four counters that no CPUID bit could
 * hide: they stand at 0 (cpu_model.c, their registers).
 */
int insn_rdpmc(struct step *step)
{
	enum { AMD_COUNTERS = 4 };

	if (step->state->cpl && !(step->state->cr4 & CR4_PCE))
		return insn_general_protection(step);
	if (!insn_is_vendor(step, CPU_AMD) || (uint32_t)step->state->gpr[1] >= AMD_COUNTERS)
		return insn_general_protection(step);
	step->state->gpr[0] = step->state->gpr[2] = 0;
	return 0;
}
