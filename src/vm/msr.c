/* Model-specific registers that are the machine's, not the engine's: APIC, MTRRs, and those that only have to exist. */
#include <errno.h>

#include "machine_internal.h"

enum {
	MSR_APIC_BASE = 0x1b, MSR_MTRR_CAP = 0xfe, MSR_MTRR_FIRST = 0x200, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC_FIRST = 0x800, MSR_X2APIC_END = 0x900,
	MSR_MISC_ENABLE = 0x1a0, MSR_K7_EVENT_SELECT = 0xc0010000, MSR_K7_END = 0xc0010008,
};
enum { APIC_BASE_BSP = 0x100, APIC_BASE_X2 = 0x400, APIC_BASE_ON = 0x800, TIMER_TSC_DEADLINE = 2 << 17 };
enum { MISC_ENABLE_FAST_STRINGS = 1 };

/* What Linux touches on either vendor and whose value may be zero. */
static bool silent_msr(uint32_t msr)
{
	switch (msr) {
	case 0x17: case 0x8b: case 0x1a0: case 0x1d9: case 0x48: case 0x49: case 0xce: case 0x140: case 0x179: case 0xc0010015: case 0xc001001f:
	case 0xc0010020: case 0xc0010055: case 0xc0010058: case 0xc0010114: case 0xc0011029: case 0xc001102c: case 0xc0011020: case 0xc0010064:
	case 0xc00110e3: case 0xc0010131: case 0xc001102d: case 0xc0011028: case 0xc0010010:
		return true;
	default: return msr >= MSR_K7_EVENT_SELECT && msr < MSR_K7_END; /* every AMD processor has these */
	}
}

static bool is_mtrr(uint32_t msr) { return msr == 0x2ff || (msr >= 0x200 && msr < 0x210) || (msr >= 0x250 && msr <= 0x26f); }

int machine_msr_read(struct vcpu *p, uint32_t msr, uint64_t *ret)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return p->apic.base & APIC_BASE_X2 ? apic_read(&p->apic, msr - MSR_X2APIC_FIRST, clock_monotonic_ns(), ret) : -EINVAL;
	if (is_mtrr(msr))
		return *ret = p->mtrr[msr - MSR_MTRR_FIRST], 0;
	switch (msr) {
	case MSR_APIC_BASE: *ret = p->apic.base; return 0;
	case MSR_MTRR_CAP: *ret = 0x508; return 0;
	case MSR_TSC_DEADLINE: *ret = p->apic.tsc_deadline; return 0;
	/* Without it Linux hides ERMS from itself, and where the processor has FSRM its memmove then writes beyond its end. */
	case MSR_MISC_ENABLE: *ret = MISC_ENABLE_FAST_STRINGS; return 0;
	default: *ret = 0; return silent_msr(msr) ? 0 : -EINVAL;
	}
}

static int write_apic_base(struct vcpu *p, uint64_t v)
{
	uint64_t old = p->apic.base;

	if (v >> 40 || v & 0x2ff)
		return -EINVAL;
	if (v & APIC_BASE_X2 && !(v & APIC_BASE_ON))
		return -EINVAL;
	if (old & APIC_BASE_X2 && (v & (APIC_BASE_X2 | APIC_BASE_ON)) == APIC_BASE_ON)
		return -EINVAL; /* from x2APIC only by way of off (SDM 11.12.5) */
	p->apic.base = (v & ~(uint64_t)APIC_BASE_BSP) | (old & APIC_BASE_BSP);
	return 0;
}

int machine_msr_write(struct vcpu *p, uint32_t msr, uint64_t v)
{
	if (msr >= MSR_X2APIC_FIRST && msr < MSR_X2APIC_END)
		return p->apic.base & APIC_BASE_X2 ? apic_write(&p->apic, msr - MSR_X2APIC_FIRST, v, clock_monotonic_ns()) : -EINVAL;
	if (is_mtrr(msr))
		return p->mtrr[msr - MSR_MTRR_FIRST] = v, 0;
	switch (msr) {
	case MSR_APIC_BASE: return write_apic_base(p, v & ~(uint64_t)APIC_BASE_BSP);
	case MSR_TSC_DEADLINE: p->apic.tsc_deadline = p->apic.lvt[0] & TIMER_TSC_DEADLINE ? v : 0; return 0;
	default: return silent_msr(msr) ? 0 : -EINVAL;
	}
}
