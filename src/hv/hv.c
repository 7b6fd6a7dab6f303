/*
 * Sources: TLFS "Feature discovery", "Virtual processor properties", "Timers", "Inter-partition communication".
 *
 * Not here yet: hypercalls beyond their refusal (no port exists, so posting and signalling answer "invalid connection"), and
 * overlay semantics of the pages (they are written into guest memory when enabled).
 */
#include "hv.h"

#include <errno.h>
#include <string.h>

enum {
	MSR_GUEST_OS_ID = 0x40000000, MSR_HYPERCALL, MSR_VP_INDEX, MSR_RESET, MSR_TIME_REF_COUNT = 0x40000020, MSR_REFERENCE_TSC,
	MSR_TSC_FREQUENCY, MSR_APIC_FREQUENCY, MSR_VP_ASSIST = 0x40000073, MSR_SCONTROL = 0x40000080, MSR_SVERSION, MSR_SIEFP, MSR_SIMP,
	MSR_EOM, MSR_SINT0 = 0x40000090, MSR_STIMER0_CONFIG = 0x400000b0, MSR_CRASH_P0 = 0x40000100, MSR_CRASH_CTL = 0x40000105,
	MSR_TSC_INVARIANT = 0x40000118,
};
enum { STIMER_ENABLE = 1, STIMER_PERIODIC = 2, STIMER_AUTO = 8, STIMER_DIRECT = 1 << 12 };
enum { MESSAGE_TIMER_EXPIRED = 0x80000010u };

void hv_partition_reset(struct hv_partition *partition, const struct hv_host *host)
{
	memset(partition, 0, sizeof(*partition));
	partition->host = host;
}

void hv_reset(struct hv_cpu *cpu, struct hv_partition *partition, uint32_t index)
{
	memset(cpu, 0, sizeof(*cpu));
	cpu->partition = partition;
	cpu->host = partition->host;
	cpu->index = index;
	for (int n = 0; n < HV_SINTS; n++)
		cpu->sint[n] = 0x10000;
}

bool hv_cpuid(const struct hv_cpu *cpu, uint32_t leaf, uint32_t r[4])
{
	static const uint32_t leaves[7][4] = {
		{ 0x40000006, 0x7263694d, 0x666f736f, 0x76482074 }, /* "Microsoft Hv" */
		{ 0x31237648, 0, 0, 0 },
		{ 20348, 10u << 16, 0, 0 },
		/* reference counter, SynIC, timers, hypercalls, VP index, reference TSC, frequencies, invariant TSC; post and
		 * signal; frequencies, crash, direct timers */
		{ 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 11 | 1u << 15, 1u << 4 | 1u << 5, 0,
		  1u << 8 | 1u << 10 | 1u << 19 },
		{ 1u << 5 | 1u << 9, ~0u, 0, 0 }, /* relaxed timing; no auto-EOI */
		{ 0, 0, 0, 0 },
		{ 0, 0, 0, 0 },
	};

	if (leaf < 0x40000000 || leaf > 0x40000006)
		return false;
	memcpy(r, leaves[leaf - 0x40000000], 16);
	if (leaf == 0x40000005)
		r[0] = r[1] = cpu->host->cpus;
	return true;
}

static void write_hypercall_page(struct hv_cpu *cpu)
{
	static const uint8_t code[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, 0xc1, 0xc3 }; /* endbr64; vmcall; ret */
	uint64_t gpa = cpu->partition->hypercall & ~4095ull;
	uint8_t *page = cpu->host->guest_page(cpu->host->context, gpa);

	if (!page || !(cpu->partition->hypercall & 1))
		return;
	memset(page, 0xcc, 4096);
	memcpy(page, code, sizeof(code));
	cpu->host->page_written(cpu->host->context, gpa);
}

static void write_reference_tsc(struct hv_cpu *cpu)
{
	uint64_t gpa = cpu->partition->reference_tsc & ~4095ull, now, tsc;
	uint8_t *page = cpu->host->guest_page(cpu->host->context, gpa);
	uint64_t scale = (uint64_t)((((unsigned __int128)10000000) << 64) / cpu->host->tsc_hz);
	int64_t offset;
	uint32_t low, high, sequence = 1;

	if (!page || !(cpu->partition->reference_tsc & 1))
		return;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	now = cpu->host->now_100ns(cpu->host->context);
	tsc = (uint64_t)high << 32 | low;
	offset = (int64_t)(now - (uint64_t)(((unsigned __int128)tsc * scale) >> 64));
	memset(page, 0, 4096);
	memcpy(page + 8, &scale, 8);
	memcpy(page + 16, &offset, 8);
	__atomic_store_n((uint32_t *)(void *)page, sequence, __ATOMIC_RELEASE);
	cpu->host->page_written(cpu->host->context, gpa);
}

/* Puts a timer message into its slot; false when the slot is taken. */
static bool post_timer(struct hv_cpu *cpu, unsigned n)
{
	struct hv_timer *t = &cpu->timer[n];
	unsigned sint = t->config >> 16 & 15;
	uint8_t *slot = cpu->simp & 1 ? cpu->host->guest_page(cpu->host->context, cpu->simp & ~4095ull) : NULL;
	uint64_t now = cpu->host->now_100ns(cpu->host->context);
	const uint32_t type = MESSAGE_TIMER_EXPIRED;

	if (!slot || !(cpu->scontrol & 1) || !sint)
		return false;
	slot += 256 * sint;
	if (__atomic_load_n((uint32_t *)(void *)slot, __ATOMIC_ACQUIRE)) {
		slot[5] |= 1;
		return false;
	}
	memset(slot + 4, 0, 36);
	slot[4] = 24;
	memcpy(slot + 16, &n, 4);
	memcpy(slot + 24, &t->due_100ns, 8);
	memcpy(slot + 32, &now, 8);
	__atomic_store_n((uint32_t *)(void *)slot, type, __ATOMIC_RELEASE);
	if (!(cpu->sint[sint] & 0x10000))
		cpu->host->raise(cpu->host->context, cpu->index, (uint8_t)cpu->sint[sint]);
	return true;
}

uint64_t hv_run_timers(struct hv_cpu *cpu)
{
	uint64_t now = cpu->host->now_100ns(cpu->host->context), next = UINT64_MAX;

	for (unsigned n = 0; n < HV_TIMERS; n++) {
		struct hv_timer *t = &cpu->timer[n];

		if (!(t->config & STIMER_ENABLE))
			continue;
		if (now >= t->due_100ns) {
			if (t->config & STIMER_DIRECT)
				cpu->host->raise(cpu->host->context, cpu->index, (uint8_t)(t->config >> 4));
			else if (!post_timer(cpu, n)) {
				next = next < now + 10000 ? next : now + 10000; /* EOM brings it sooner */
				continue;
			}
			if (t->config & STIMER_PERIODIC) {
				t->due_100ns += t->count;
				if (t->due_100ns <= now)
					t->due_100ns = now + t->count;
			} else {
				t->config &= ~(uint64_t)STIMER_ENABLE;
				continue;
			}
		}
		next = t->due_100ns < next ? t->due_100ns : next;
	}
	return next;
}

static void set_timer(struct hv_cpu *cpu, unsigned n, bool count, uint64_t value)
{
	struct hv_timer *t = &cpu->timer[n];

	if (count) {
		t->count = value;
		if (!value)
			t->config &= ~(uint64_t)STIMER_ENABLE;
		else if (t->config & STIMER_AUTO)
			t->config |= STIMER_ENABLE;
	} else {
		t->config = value & 0xf1fff;
		if (!(t->config & STIMER_DIRECT) && !(t->config >> 16 & 15))
			t->config &= ~(uint64_t)STIMER_ENABLE;
		if (!t->count)
			t->config &= ~(uint64_t)STIMER_ENABLE;
	}
	t->due_100ns = t->config & STIMER_PERIODIC ? cpu->host->now_100ns(cpu->host->context) + t->count : t->count;
}

static void crash(struct hv_cpu *cpu, uint64_t control)
{
	uint8_t *page = control >> 62 & 1 ? cpu->host->guest_page(cpu->host->context, cpu->partition->crash[3] & ~4095ull) : NULL;
	size_t bytes = page && !(cpu->partition->crash[3] & 4095) && cpu->partition->crash[4] <= 4096 ? cpu->partition->crash[4] : 0;

	if (control >> 63)
		cpu->host->crashed(cpu->host->context, (const char *)page, bytes, cpu->partition->crash);
}

int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret)
{
	if (msr >= MSR_SINT0 && msr < MSR_SINT0 + HV_SINTS)
		return *ret = cpu->sint[msr - MSR_SINT0], 0;
	if (msr >= MSR_STIMER0_CONFIG && msr < MSR_STIMER0_CONFIG + 2 * HV_TIMERS)
		return *ret = msr & 1 ? cpu->timer[(msr - MSR_STIMER0_CONFIG) / 2].count : cpu->timer[(msr - MSR_STIMER0_CONFIG) / 2].config, 0;
	if (msr >= MSR_CRASH_P0 && msr < MSR_CRASH_P0 + 5)
		return *ret = cpu->partition->crash[msr - MSR_CRASH_P0], 0;
	switch (msr) {
	case MSR_GUEST_OS_ID: *ret = cpu->partition->guest_os_id; return 0;
	case MSR_HYPERCALL: *ret = cpu->partition->hypercall; return 0;
	case MSR_VP_INDEX: *ret = cpu->index; return 0;
	case MSR_RESET: *ret = 0; return 0;
	case MSR_TIME_REF_COUNT: *ret = cpu->host->now_100ns(cpu->host->context); return 0;
	case MSR_REFERENCE_TSC: *ret = cpu->partition->reference_tsc; return 0;
	case MSR_TSC_FREQUENCY: *ret = cpu->host->tsc_hz; return 0;
	case MSR_APIC_FREQUENCY: *ret = cpu->host->apic_hz; return 0;
	case MSR_VP_ASSIST: *ret = cpu->vp_assist; return 0;
	case MSR_SCONTROL: *ret = cpu->scontrol; return 0;
	case MSR_SVERSION: *ret = 1; return 0;
	case MSR_SIEFP: *ret = cpu->siefp; return 0;
	case MSR_SIMP: *ret = cpu->simp; return 0;
	case MSR_EOM: *ret = 0; return 0;
	case MSR_CRASH_CTL: *ret = 3ull << 62; return 0;
	case MSR_TSC_INVARIANT: *ret = cpu->partition->tsc_invariant; return 0;
	default: return -EINVAL;
	}
}

int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t v)
{
	if (msr >= MSR_SINT0 && msr < MSR_SINT0 + HV_SINTS) {
		if (!(v & 0x10000) && (v & 0xff) < 16)
			return -EINVAL;
		return cpu->sint[msr - MSR_SINT0] = v, 0;
	}
	if (msr >= MSR_STIMER0_CONFIG && msr < MSR_STIMER0_CONFIG + 2 * HV_TIMERS)
		return set_timer(cpu, (msr - MSR_STIMER0_CONFIG) / 2, msr & 1, v), 0;
	if (msr >= MSR_CRASH_P0 && msr < MSR_CRASH_P0 + 5)
		return cpu->partition->crash[msr - MSR_CRASH_P0] = v, 0;
	switch (msr) {
	case MSR_GUEST_OS_ID:
		cpu->partition->guest_os_id = v;
		if (!v)
			cpu->partition->hypercall &= ~1ull;
		return 0;
	case MSR_HYPERCALL:
		if (cpu->partition->hypercall & 2)
			return -EINVAL;
		cpu->partition->hypercall = cpu->partition->guest_os_id ? v : v & ~1ull;
		write_hypercall_page(cpu);
		return 0;
	case MSR_RESET:
		if (v & 1)
			cpu->host->reset(cpu->host->context);
		return 0;
	case MSR_REFERENCE_TSC:
		cpu->partition->reference_tsc = v;
		write_reference_tsc(cpu);
		return 0;
	case MSR_VP_ASSIST: {
		uint8_t *page = v & 1 ? cpu->host->guest_page(cpu->host->context, v & ~4095ull) : NULL;

		cpu->vp_assist = v;
		if (page)
			memset(page, 0, 4);
		return 0;
	}
	case MSR_SCONTROL: cpu->scontrol = v & 1; return 0;
	case MSR_SIEFP: cpu->siefp = v; return 0;
	case MSR_SIMP: cpu->simp = v; return 0;
	case MSR_EOM: hv_run_timers(cpu); return 0;
	case MSR_CRASH_CTL: crash(cpu, v); return 0;
	case MSR_TSC_INVARIANT: cpu->partition->tsc_invariant = v & 1; return 0;
	default: return -EINVAL;
	}
}

uint64_t hv_hypercall(struct hv_cpu *cpu, uint64_t control)
{
	(void)cpu;
	switch (control & 0xffff) {
	case 0x5c: case 0x5d: return 0x12; /* invalid connection id */
	default: return 2; /* invalid call code */
	}
}
