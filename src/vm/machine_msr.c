/*
 * Model-specific registers that are the machine's, not the engine's: APIC, MTRRs, and those whose
 * value is the model's.
 */
#include <errno.h>

#include "machine_internal.h"

enum {
	MSR_APIC_BASE = 0x1b,
	MSR_MTRR_CAP = 0xfe,
	MSR_MTRR_FIRST = 0x200,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC_FIRST = 0x800,
	MSR_X2APIC_END = 0x900,
};
enum { TIMER_TSC_DEADLINE = 2 << 17 };

static bool model_has(const struct vcpu *p, enum cpu_feature feature)
{
	return cpu_has(&p->machine->model.features, feature);
}

static bool is_mtrr(uint32_t msr)
{
	return msr == 0x2ff || (msr >= 0x200 && msr < 0x210) || (msr >= 0x250 && msr <= 0x26f);
}

static uint64_t *mtrr_of(struct vcpu *p, uint32_t msr)
{
	const uint64_t count = sizeof(p->mtrr) / sizeof(p->mtrr[0]);

	return &p->mtrr[speculation_bound(msr - MSR_MTRR_FIRST, count)];
}

int machine_msr_read(struct vcpu *p, uint32_t msr, uint64_t *ret)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return apic_is_x2(&p->apic) ? apic_read(&p->apic, msr - MSR_X2APIC_FIRST,
							clock_monotonic_ns(), ret)
					    : -EINVAL;
	if (is_mtrr(msr)) {
		*ret = *mtrr_of(p, msr);
		return 0;
	}
	switch (msr) {
	case MSR_APIC_BASE: *ret = p->apic.base; return 0;
	case MSR_MTRR_CAP: *ret = 0x508; return 0;
	case MSR_TSC_DEADLINE:
		*ret = p->apic.tsc_deadline;
		return model_has(p, CPU_TSC_DEADLINE) ? 0 : -EINVAL;
	default: return cpu_model_read(&p->machine->model, p->model_registers, msr, ret);
	}
}

int machine_msr_write(struct vcpu *p, uint32_t msr, uint64_t v)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return apic_is_x2(&p->apic) ? apic_write(&p->apic, msr - MSR_X2APIC_FIRST, v,
							 clock_monotonic_ns())
					    : -EINVAL;
	if (is_mtrr(msr)) {
		*mtrr_of(p, msr) = v;
		return 0;
	}
	switch (msr) {
	case MSR_APIC_BASE: return apic_set_base(&p->apic, v, model_has(p, CPU_X2APIC));
	case MSR_TSC_DEADLINE:
		if (!model_has(p, CPU_TSC_DEADLINE))
			return -EINVAL;
		p->apic.tsc_deadline = p->apic.lvt[0] & TIMER_TSC_DEADLINE ? v : 0;
		return 0;
	default: return cpu_model_write(&p->machine->model, p->model_registers, msr, v);
	}
}
