/*
 * Model-specific registers that are the machine's, not the engine's: APIC, MTRRs, and those whose
 * value is the model's.
 */
#include <assert.h>
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

static bool model_has(const struct vcpu *vcpu, enum cpu_feature feature)
{
	return cpu_has(&vcpu->machine->model.features, feature);
}

static bool is_mtrr(uint32_t msr)
{
	return msr == 0x2ff || (msr >= 0x200 && msr < 0x210) || (msr >= 0x250 && msr <= 0x26f);
}

static uint64_t *mtrr_of(struct vcpu *vcpu, uint32_t msr)
{
	const uint64_t count = sizeof(vcpu->mtrr) / sizeof(vcpu->mtrr[0]);

	assert(is_mtrr(msr));
	return &vcpu->mtrr[speculation_bound(msr - MSR_MTRR_FIRST, count)];
}

int machine_msr_read(struct vcpu *vcpu, uint32_t msr, uint64_t *ret)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return apic_is_x2(&vcpu->apic) ? apic_read(&vcpu->apic, msr - MSR_X2APIC_FIRST,
							   clock_monotonic_ns(), ret)
					       : -EINVAL;
	if (is_mtrr(msr)) {
		*ret = *mtrr_of(vcpu, msr);
		return 0;
	}
	switch (msr) {
	case MSR_APIC_BASE: *ret = vcpu->apic.base; return 0;
	case MSR_MTRR_CAP: *ret = 0x508; return 0;
	case MSR_TSC_DEADLINE:
		*ret = vcpu->apic.tsc_deadline;
		return model_has(vcpu, CPU_TSC_DEADLINE) ? 0 : -EINVAL;
	default: return cpu_model_read(&vcpu->machine->model, vcpu->model_registers, msr, ret);
	}
}

int machine_msr_write(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return apic_is_x2(&vcpu->apic) ? apic_write(&vcpu->apic, msr - MSR_X2APIC_FIRST,
							    value, clock_monotonic_ns())
					       : -EINVAL;
	if (is_mtrr(msr)) {
		*mtrr_of(vcpu, msr) = value;
		return 0;
	}
	switch (msr) {
	case MSR_APIC_BASE: return apic_set_base(&vcpu->apic, value, model_has(vcpu, CPU_X2APIC));
	case MSR_TSC_DEADLINE:
		if (!model_has(vcpu, CPU_TSC_DEADLINE))
			return -EINVAL;
		vcpu->apic.tsc_deadline = vcpu->apic.lvt[0] & TIMER_TSC_DEADLINE ? value : 0;
		return 0;
	default: return cpu_model_write(&vcpu->machine->model, vcpu->model_registers, msr, value);
	}
}
