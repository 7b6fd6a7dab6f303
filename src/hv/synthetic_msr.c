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
	(void)n;
	*ret = cpu->partition->guest_os_id;
	return 0;
}

static int write_os_id(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	struct hv_partition *partition = cpu->partition;

	(void)n;
	partition->guest_os_id = value;
	if (!value) {
		partition->hypercall &= ~(uint64_t)CALL_ENABLE;
		partition->umbra_version = 0;
		hv_place(partition, OVERLAY_HYPERCALL, 0, true);
	}
	return 0;
}

static int read_hypercall(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = cpu->partition->hypercall;
	return 0;
}

static int write_hypercall(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	struct hv_partition *partition = cpu->partition;

	(void)n;
	if (partition->hypercall & CALL_LOCKED)
		return -EINVAL;
	if (!hv_has(partition, HV_CALL_LOCK))
		value &= ~(uint64_t)CALL_LOCKED;
	__atomic_store_n(&partition->hypercall,
			 partition->guest_os_id ? value : value & ~(uint64_t)CALL_ENABLE,
			 __ATOMIC_SEQ_CST);
	hv_place(partition, OVERLAY_HYPERCALL, partition->hypercall, true);
	return 0;
}

static int read_index(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = cpu->index;
	return 0;
}
static int read_zero(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)cpu;
	(void)n;
	*ret = 0;
	return 0;
}

static int write_reset(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	const struct hv_host *host = cpu->partition->host;

	(void)n;
	if (value & 1)
		host->reset(host->context);
	return 0;
}

/* ---- time ---- */

static int read_runtime(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	const struct hv_host *host = cpu->partition->host;

	(void)n;
	*ret = host->runtime_100ns(host->context, cpu->index);
	return 0;
}

static int read_time(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = hv_now(cpu->partition);
	return 0;
}
static int read_reference(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = cpu->partition->reference_tsc;
	return 0;
}

static int write_reference(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	(void)n;
	cpu->partition->reference_tsc = value;
	if (value & 1)
		hv_write_reference_tsc(cpu->partition);
	hv_place(cpu->partition, OVERLAY_REFERENCE_TSC, value, true);
	return 0;
}

static int read_frequency(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = n ? cpu->partition->host->apic_hz : cpu->partition->host->tsc_hz;
	return 0;
}
static int read_invariant(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = cpu->partition->tsc_invariant;
	return 0;
}
static int write_invariant(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	(void)n;
	cpu->partition->tsc_invariant = value & 1;
	return 0;
}

static int read_timer(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = n & 1 ? cpu->timer[n / 2].count : cpu->timer[n / 2].config;
	return 0;
}
static int write_timer(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	hv_set_timer(cpu, n / 2, n & 1, value);
	return 0;
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

static int write_apic(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	const struct hv_host *host = cpu->partition->host;

	return host->apic_write(host->context, cpu->index, (enum hv_apic_register)n, value);
}

static int read_assist(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)n;
	*ret = cpu->vp_assist;
	return 0;
}

static int write_assist(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	(void)n;
	cpu->vp_assist = value;
	hv_place(cpu->partition, OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + OVERLAY_ASSIST, value,
		 false);
	return 0;
}

/* ---- SynIC ---- */

static int read_scontrol(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = n ? 1 : cpu->scontrol;
	return 0;
}

static int write_scontrol(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	if (n)
		return -EINVAL; /* the version */
	cpu->scontrol = value & 1;
	hv_end_of_message(cpu); /* what waited for this */
	return 0;
}

static int read_synic_page(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = n ? cpu->simp : cpu->siefp;
	return 0;
}

static int write_synic_page(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	*(n ? &cpu->simp : &cpu->siefp) = value;
	hv_place(cpu->partition,
		 OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + (n ? OVERLAY_SIMP : OVERLAY_SIEFP),
		 value, false);
	if (n)
		hv_end_of_message(cpu);
	return 0;
}

static int write_eom(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	(void)n;
	(void)value;
	hv_end_of_message(cpu);
	return 0;
}
static int read_sint(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = cpu->sint[n];
	return 0;
}

/* ---- crash ---- */

static int read_crash(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	*ret = cpu->partition->crash[n];
	return 0;
}
static int write_crash(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	cpu->partition->crash[n] = value;
	return 0;
}
static int read_crash_control(struct hv_cpu *cpu, unsigned n, uint64_t *ret)
{
	(void)cpu;
	(void)n;
	*ret = 3ull << CRASH_MESSAGE;
	return 0;
}

static int write_crash_control(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	struct hv_partition *partition = cpu->partition;
	char text[GUEST_PAGE_BYTES];
	size_t bytes = value >> CRASH_MESSAGE & 1 && partition->crash[4] <= sizeof(text)
			       ? partition->crash[4]
			       : 0;

	(void)n;
	if (!(value >> CRASH_NOTIFY & 1))
		return 0;
	if (bytes && guest_memory_read(partition->host->memory, partition->crash[3], text, bytes))
		bytes = 0;
	partition->host->crashed(partition->host->context, text, bytes, partition->crash);
	return 0;
}

/* ---- the table ---- */

#define AT(msr) [(msr) - MSR_FIRST]
#define GROUP(first, last) [(first) - MSR_FIRST ... (last) - MSR_FIRST]
static const struct msr msrs[MSRS] = {
	AT(0x40000000) = {
		.read = read_os_id, .write = write_os_id, .feature = HV_BASE, .locked = true,
	},
	AT(0x40000001) = {
		.read = read_hypercall, .write = write_hypercall,
		.feature = HV_BASE, .locked = true,
	},
	AT(0x40000002) = { .read = read_index, .feature = HV_BASE },
	AT(0x40000003) = {
		.read = read_zero, .write = write_reset, .feature = HV_RESET, .locked = true,
	},
	AT(0x40000010) = { .read = read_runtime, .feature = HV_RUNTIME },
	AT(0x40000020) = { .read = read_time, .feature = HV_TIME_REF },
	AT(0x40000021) = {
		.read = read_reference, .write = write_reference,
		.feature = HV_REF_TSC, .locked = true,
	},
	GROUP(0x40000022, 0x40000023) = {
		.read = read_frequency, .feature = HV_FREQUENCIES, .first = 0x22,
	},
	GROUP(0x40000070, 0x40000072) = {
		.read = read_apic, .write = write_apic,
		.feature = HV_VAPIC, .locked = true, .timers = true, .first = 0x70,
	},
	/* Linux writes it whatever is announced */
	AT(0x40000073) = {
		.read = read_assist, .write = write_assist, .feature = HV_BASE, .locked = true,
	},
	GROUP(0x40000080, 0x40000081) = {
		.read = read_scontrol, .write = write_scontrol,
		.feature = HV_SYNIC, .locked = true, .timers = true, .first = 0x80,
	},
	GROUP(0x40000082, 0x40000083) = {
		.read = read_synic_page, .write = write_synic_page,
		.feature = HV_SYNIC, .locked = true, .timers = true, .first = 0x82,
	},
	AT(0x40000084) = {
		.read = read_zero, .write = write_eom,
		.feature = HV_SYNIC, .locked = true, .timers = true,
	},
	GROUP(0x40000090, 0x4000009f) = {
		.read = read_sint, .write = hv_set_sint,
		.feature = HV_SYNIC, .locked = true, .timers = true, .first = 0x90,
	},
	GROUP(0x400000b0, 0x400000b7) = {
		.read = read_timer, .write = write_timer,
		.feature = HV_STIMER, .locked = true, .timers = true, .first = 0xb0,
	},
	AT(0x400000f0) = { .read = read_idle, .feature = HV_IDLE, .locked = true },
	GROUP(0x40000100, 0x40000104) = {
		.read = read_crash, .write = write_crash,
		.feature = HV_CRASH, .locked = true, .first = 0x100,
	},
	AT(0x40000105) = {
		.read = read_crash_control, .write = write_crash_control,
		.feature = HV_CRASH, .locked = true,
	},
	AT(0x40000118) = {
		.read = read_invariant, .write = write_invariant, .feature = HV_TSC_INVARIANT,
	},
};

static const struct msr *msr_find(struct hv_cpu *cpu, uint32_t msr)
{
	uint32_t n = msr - MSR_FIRST;
	const struct msr *row = &msrs[speculation_bound(n, MSRS)];

	return n < MSRS && (row->read || row->write) &&
			       hv_has(cpu->partition, (enum hv_feature)row->feature)
		       ? row
		       : NULL;
}

static unsigned place_in_group(const struct msr *row, uint32_t msr)
{
	return row->first ? msr - MSR_FIRST - row->first : 0;
}

static int msr_refuse(struct hv_cpu *cpu)
{
	hv_count(&cpu->partition->bad_msrs);
	return -EINVAL;
}

int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret)
{
	const struct msr *row = msr_find(cpu, msr);
	int error;

	if (!row || !row->read)
		return msr_refuse(cpu);
	/* a processor's own registers change on its own thread only, except for what expires */
	if (row->locked)
		hv_lock(cpu->partition);
	error = row->read(cpu, place_in_group(row, msr), ret);
	if (row->locked)
		hv_unlock(cpu->partition);
	return error ? msr_refuse(cpu) : 0;
}

int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t value, bool *ret_timers)
{
	const struct msr *row = msr_find(cpu, msr);
	int error;

	*ret_timers = false;
	if (!row || !row->write)
		return msr_refuse(cpu);
	guest_memory_begin();
	if (row->locked)
		hv_lock(cpu->partition);
	error = row->write(cpu, place_in_group(row, msr), value);
	if (row->locked)
		hv_unlock(cpu->partition);
	*ret_timers = row->timers;
	return error ? msr_refuse(cpu) : 0;
}
