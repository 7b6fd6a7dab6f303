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

static uint64_t *plain_msr(struct x86_state *s, uint32_t msr)
{
	switch (msr) {
	case 0x174: return &s->sysenter_cs;
	case 0x175: return &s->sysenter_esp;
	case 0x176: return &s->sysenter_eip;
	case 0x277: return &s->pat;
	case 0xc0000081: return &s->star;
	case 0xc0000082: return &s->lstar;
	case 0xc0000083: return &s->cstar;
	case 0xc0000084: return &s->sfmask;
	case 0xc0000100: return &s->segment[X86_FS].base;
	case 0xc0000101: return &s->segment[X86_GS].base;
	case 0xc0000102: return &s->kernel_gs_base;
	case 0xc0000103: return &s->tsc_aux;
	default: return NULL;
	}
}

/* IA32_TSC_ADJUST moves with every write of the counter, and a write of it moves the counter. */
static bool has_tsc_adjust(const struct step *t, uint32_t msr)
{
	const struct cpu_model *model = t->cpu->engine->model;

	return msr == MSR_TSC_ADJUST && (!model || cpu_has(&model->features, CPU_TSC_ADJUST));
}

static void move_tsc(struct x86_state *s, uint64_t by)
{
	s->tsc_offset += by;
	s->tsc_adjust += by;
}

int insn_access_msr(struct step *t, bool write)
{
	struct x86_state *s = t->s;
	uint32_t msr = (uint32_t)s->gpr[1];
	uint64_t v = s->gpr[2] << 32 | (uint32_t)s->gpr[0];
	uint64_t *plain = plain_msr(s, msr);
	int error;

	if (s->cpl)
		return insn_general_protection(t);
	if (write && plain) {
		if (((msr & 0xfffffffe) == 0xc0000082 ||
		     (msr >= 0xc0000100 && msr <= 0xc0000102)) &&
		    !soft_canonical(v))
			return insn_general_protection(t);
		*plain = v;
		return 0;
	}
	if (write && msr == 0xc0000080) {
		if (v &
		    ~(t->cpu->engine->model ? t->cpu->engine->model->efer_valid : X86_EFER_KNOWN))
			return insn_general_protection(t);
		if (s->cr0 & CR0_PG && (v ^ s->efer) & EFER_LME)
			return insn_general_protection(t);
		s->efer = (v & ~(uint64_t)EFER_LMA) | (s->efer & EFER_LMA);
		soft_change_mode(t->cpu, false);
		return 0;
	}
	if (write && msr == 0x10) {
		move_tsc(s, v - (host_tsc() + s->tsc_offset));
		return 0;
	}
	if (write && has_tsc_adjust(t, msr)) {
		move_tsc(s, v - s->tsc_adjust);
		return 0;
	}
	if (!write && plain)
		v = *plain;
	else if (!write && msr == 0xc0000080)
		v = s->efer;
	else if (!write && msr == 0x10)
		v = host_tsc() + s->tsc_offset;
	else if (!write && has_tsc_adjust(t, msr))
		v = s->tsc_adjust;
	else {
		soft_outside(t->cpu);
		error = write ? t->cpu->ops->msr_write(t->cpu->ops_context, msr, v)
			      : t->cpu->ops->msr_read(t->cpu->ops_context, msr, &v);
		soft_inside(t->cpu);
		if (error)
			return insn_general_protection(t);
	}
	if (!write) {
		s->gpr[0] = (uint32_t)v;
		s->gpr[2] = v >> 32;
	}
	return 0;
}

int insn_rdtscp(struct step *t)
{
	uint64_t tsc = host_tsc() + t->s->tsc_offset;

	t->s->gpr[0] = (uint32_t)tsc;
	t->s->gpr[2] = tsc >> 32;
	t->s->gpr[1] = (uint32_t)t->s->tsc_aux;
	return 0;
}

/*
 * No model has a performance monitor. AMD's processors have four counters that no CPUID bit could
 * hide: they stand at 0 (cpu_model.c, their registers).
 */
int insn_rdpmc(struct step *t)
{
	enum { AMD_COUNTERS = 4 };

	if (t->s->cpl && !(t->s->cr4 & CR4_PCE))
		return insn_general_protection(t);
	if (!insn_is_vendor(t, CPU_AMD) || (uint32_t)t->s->gpr[1] >= AMD_COUNTERS)
		return insn_general_protection(t);
	t->s->gpr[0] = t->s->gpr[2] = 0;
	return 0;
}
