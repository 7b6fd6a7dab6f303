/*
 * Synthetic registers: one table from a register to the feature that grants it and what reading and
 * writing do. What has no entry, no feature or no function raises #GP.
 *
 * Overlay registers keep what was written, bit 0 included, also where the page is nowhere (TLFS
 * "GPA overlay pages").
 */
#include "hv_internal.h"

enum { MSR_FIRST = 0x40000000, MSRS = 0x120 };
enum { CRASH_NOTIFY = 63, CRASH_MESSAGE = 62, CALL_ENABLE = 1, CALL_LOCKED = 2 };

/* n: the register's place in its group. Called with the lock where `locked`. */
struct msr {
	int (*read)(struct hv_cpu *cpu, unsigned n, uint64_t *ret);
	int (*write)(struct hv_cpu *cpu, unsigned n, uint64_t value);
	uint8_t feature;
	bool locked, timers; /* timers: a write changes what is due */
	uint16_t first;
};

/* ---- partition ---- */

static int read_os_id(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->partition->guest_os_id, 0;
}

static int write_os_id(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	struct hv_partition *p = cpu->partition;

	(void)n;
	p->guest_os_id = v;
	if (!v) {
		p->hypercall &= ~(uint64_t)CALL_ENABLE;
		p->umbra_version = 0;
		hv_place(p, OVERLAY_HYPERCALL, 0, true);
	}
	return 0;
}

static int read_hypercall(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->partition->hypercall, 0;
}

static int write_hypercall(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	struct hv_partition *p = cpu->partition;

	(void)n;
	if (p->hypercall & CALL_LOCKED)
		return -EINVAL;
	if (!hv_has(p, HV_CALL_LOCK))
		v &= ~(uint64_t)CALL_LOCKED;
	__atomic_store_n(&p->hypercall, p->guest_os_id ? v : v & ~(uint64_t)CALL_ENABLE,
			 __ATOMIC_SEQ_CST);
	hv_place(p, OVERLAY_HYPERCALL, p->hypercall, true);
	return 0;
}

static int read_index(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->index, 0;
}
static int read_zero(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)cpu, (void)n, *ret = 0, 0;
}

static int write_reset(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	const struct hv_host *host = cpu->partition->host;

	(void)n;
	if (v & 1)
		host->reset(host->context);
	return 0;
}

/* ---- time ---- */

static int read_runtime(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	const struct hv_host *host = cpu->partition->host;

	return (void)n, *ret = host->runtime_100ns(host->context, cpu->index), 0;
}

static int read_time(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = hv_now(cpu->partition), 0;
}
static int read_reference(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->partition->reference_tsc, 0;
}

static int write_reference(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	(void)n;
	cpu->partition->reference_tsc = v;
	if (v & 1)
		hv_write_reference_tsc(cpu->partition);
	hv_place(cpu->partition, OVERLAY_REFERENCE_TSC, v, true);
	return 0;
}

static int read_frequency(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = n ? cpu->partition->host->apic_hz : cpu->partition->host->tsc_hz, 0;
}
static int read_invariant(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->partition->tsc_invariant, 0;
}
static int write_invariant(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	return (void)n, cpu->partition->tsc_invariant = v & 1, 0;
}

static int read_timer(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = n & 1 ? cpu->timer[n / 2].count : cpu->timer[n / 2].config, 0;
}
static int write_timer(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	return hv_set_timer(cpu, n / 2, n & 1, v), 0;
}

static int read_idle(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	const struct hv_host *host = cpu->partition->host;

	(void)n;
	*ret = 0;
	host->idle(host->context, cpu->index);
	return 0;
}

/* ---- APIC ---- */

static int read_apic(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	const struct hv_host *host = cpu->partition->host;

	return n == HV_APIC_EOI
		       ? -EINVAL
		       : host->apic_read(host->context, cpu->index, (enum hv_apic_register)n, ret);
}

static int write_apic(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	const struct hv_host *host = cpu->partition->host;

	return host->apic_write(host->context, cpu->index, (enum hv_apic_register)n, v);
}

static int read_assist(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)n, *ret = cpu->vp_assist, 0;
}

static int write_assist(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	(void)n;
	cpu->vp_assist = v;
	hv_place(cpu->partition, OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + OVERLAY_ASSIST, v,
		 false);
	return 0;
}

/* ---- SynIC ---- */

static int read_scontrol(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = n ? 1 : cpu->scontrol, 0;
}

static int write_scontrol(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	if (n)
		return -EINVAL; /* the version */
	cpu->scontrol = v & 1;
	hv_end_of_message(cpu); /* what waited for this */
	return 0;
}

static int read_synic_page(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = n ? cpu->simp : cpu->siefp, 0;
}

static int write_synic_page(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	*(n ? &cpu->simp : &cpu->siefp) = v;
	hv_place(cpu->partition,
		 OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + (n ? OVERLAY_SIMP : OVERLAY_SIEFP), v,
		 false);
	if (n)
		hv_end_of_message(cpu);
	return 0;
}

static int write_eom(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	return (void)n, (void)v, hv_end_of_message(cpu), 0;
}
static int read_sint(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = cpu->sint[n], 0;
}

/* ---- crash ---- */

static int read_crash(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return *ret = cpu->partition->crash[n], 0;
}
static int write_crash(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	return cpu->partition->crash[n] = v, 0;
}
static int read_crash_control(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	return (void)cpu, (void)n, *ret = 3ull << CRASH_MESSAGE, 0;
}

static int write_crash_control(struct hv_cpu *cpu, unsigned n, uint64_t v)
{
	struct hv_partition *p = cpu->partition;
	char text[GUEST_PAGE_BYTES];
	size_t bytes = v >> CRASH_MESSAGE & 1 && p->crash[4] <= sizeof(text) ? p->crash[4] : 0;

	(void)n;
	if (!(v >> CRASH_NOTIFY & 1))
		return 0;
	if (bytes && guest_memory_read(p->host->memory, p->crash[3], text, bytes))
		bytes = 0;
	p->host->crashed(p->host->context, text, bytes, p->crash);
	return 0;
}

/* ---- the table ---- */

#define AT(msr) [(msr) - MSR_FIRST]
#define GROUP(first, last) [(first) - MSR_FIRST ... (last) - MSR_FIRST]
static const struct msr msrs[MSRS] = {
	AT(0x40000000) = { read_os_id, write_os_id, HV_BASE, true, false, 0 },
	AT(0x40000001) = { read_hypercall, write_hypercall, HV_BASE, true, false, 0 },
	AT(0x40000002) = { read_index, NULL, HV_BASE, false, false, 0 },
	AT(0x40000003) = { read_zero, write_reset, HV_RESET, true, false, 0 },
	AT(0x40000010) = { read_runtime, NULL, HV_RUNTIME, false, false, 0 },
	AT(0x40000020) = { read_time, NULL, HV_TIME_REF, false, false, 0 },
	AT(0x40000021) = { read_reference, write_reference, HV_REF_TSC, true, false, 0 },
	GROUP(0x40000022, 0x40000023) = { read_frequency, NULL, HV_FREQUENCIES, false, false,
					  0x22 },
	GROUP(0x40000070, 0x40000072) = { read_apic, write_apic, HV_VAPIC, true, true, 0x70 },
	/* Linux writes it whatever is announced */
	AT(0x40000073) = { read_assist, write_assist, HV_BASE, true, false, 0 },
	GROUP(0x40000080, 0x40000081) = { read_scontrol, write_scontrol, HV_SYNIC, true, true,
					  0x80 },
	GROUP(0x40000082, 0x40000083) = { read_synic_page, write_synic_page, HV_SYNIC, true, true,
					  0x82 },
	AT(0x40000084) = { read_zero, write_eom, HV_SYNIC, true, true, 0 },
	GROUP(0x40000090, 0x4000009f) = { read_sint, hv_set_sint, HV_SYNIC, true, true, 0x90 },
	GROUP(0x400000b0, 0x400000b7) = { read_timer, write_timer, HV_STIMER, true, true, 0xb0 },
	AT(0x400000f0) = { read_idle, NULL, HV_IDLE, true, false, 0 },
	GROUP(0x40000100, 0x40000104) = { read_crash, write_crash, HV_CRASH, true, false, 0x100 },
	AT(0x40000105) = { read_crash_control, write_crash_control, HV_CRASH, true, false, 0 },
	AT(0x40000118) = { read_invariant, write_invariant, HV_TSC_INVARIANT, false, false, 0 },
};

static const struct msr *find(struct hv_cpu *cpu, uint32_t msr)
{
	uint32_t n = msr - MSR_FIRST;

	return n < MSRS && (msrs[n].read || msrs[n].write) &&
			       hv_has(cpu->partition, (enum hv_feature)msrs[n].feature)
		       ? &msrs[n]
		       : NULL;
}

static unsigned place_in_group(const struct msr *m, uint32_t msr)
{
	return m->first ? msr - MSR_FIRST - m->first : 0;
}

static int refuse(struct hv_cpu *cpu)
{
	hv_count(&cpu->partition->bad_msrs);
	return -EINVAL;
}

int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret)
{
	const struct msr *m = find(cpu, msr);
	int error;

	if (!m || !m->read)
		return refuse(cpu);
	/* a processor's own registers change on its own thread only, except for what expires */
	if (m->locked)
		hv_lock(cpu->partition);
	error = m->read(cpu, place_in_group(m, msr), ret);
	if (m->locked)
		hv_unlock(cpu->partition);
	return error ? refuse(cpu) : 0;
}

int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t value, bool *ret_timers)
{
	const struct msr *m = find(cpu, msr);
	int error;

	*ret_timers = false;
	if (!m || !m->write)
		return refuse(cpu);
	guest_memory_begin();
	if (m->locked)
		hv_lock(cpu->partition);
	error = m->write(cpu, place_in_group(m, msr), value);
	if (m->locked)
		hv_unlock(cpu->partition);
	*ret_timers = m->timers;
	return error ? refuse(cpu) : 0;
}
