/* What the Hyper-V interface asks of the machine (hv.h says what is called under the lock). */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "machine_internal.h"

#include "chipset/acpi.h"

static struct vcpu *vcpu_of(void *context, uint32_t vp_index)
{
	struct machine *machine = context;

	assert(vp_index < machine->options.cpus); /* the interface has looked */
	return &machine->vcpus[speculation_bound(vp_index, MACHINE_MAX_CPUS)];
}

static void get_state(void *context, uint32_t vp_index, struct x86_state *ret)
{
	const struct vcpu *vcpu = vcpu_of(context, vp_index);
	struct engine_state state;

	engine_get(vcpu->cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	*ret = state.x86;
	ret->cr8 = vcpu_task_priority_class(vcpu);
}

static void set_general(void *context, uint32_t vp_index, const struct x86_state *x86)
{
	struct engine_state state = { .x86 = *x86 };

	engine_set(vcpu_of(context, vp_index)->cpu, ENGINE_GENERAL, &state);
}

static void *xmm(void *context, uint32_t vp_index, unsigned n)
{
	return engine_call_xmm(vcpu_of(context, vp_index)->cpu, n);
}

static void flush(void *context, uint64_t targets, const struct engine_gva_range *ranges,
		  unsigned count, bool global)
{
	engine_flush(((struct machine *)context)->engine, targets, ranges, count, global);
}

static void memory_written(void *context, uint64_t gpa, size_t bytes)
{
	engine_memory_written(((struct machine *)context)->engine, gpa, bytes);
}

static bool holds(void *context, uint64_t gpa, uint64_t bytes)
{
	const struct machine *machine = context;

	return machine->devices && devices_hold_pages(machine->devices, gpa, bytes);
}

/* -EBUSY: a device has some of it. */
static int discard(void *context, uint8_t *hva, size_t bytes)
{
	const struct machine *machine = context;
	const uint64_t offset = (uint64_t)(hva - machine->memory.ram);
	const uint64_t low_bytes = machine->memory.low_bytes;
	const uint64_t gpa = offset < low_bytes ? offset : GUEST_HIGH_GPA + offset - low_bytes;

	if (holds(context, gpa, bytes))
		return -EBUSY;
	return madvise(hva, bytes, MADV_DONTNEED) ? -errno : 0;
}

/* Of the calling processor: no other is asked for. */
static uint64_t runtime_100ns(void *context, uint32_t vp_index)
{
	return vcpu_runtime_100ns(vcpu_of(context, vp_index));
}

static void hv_host_yield(void *context, uint32_t vp_index)
{
	give_way(&vcpu_of(context, vp_index)->way);
}

static void place_overlay(void *context, unsigned overlay, uint64_t gpa, bool read_only)
{
	struct machine *machine = context;

	engine_place_overlay(machine->engine, &machine->memory, overlay, gpa, read_only);
}

static void raise_vector(void *context, uint32_t vp_index, uint8_t vector)
{
	struct vcpu *vcpu = vcpu_of(context, vp_index);

	apic_raise(&vcpu->apic, vector, false);
	interrupt_notify(vcpu);
}

static void set_auto_eoi(void *context, uint32_t vp_index, uint8_t vector, bool on)
{
	apic_set_auto_eoi(&vcpu_of(context, vp_index)->apic, vector, on);
}

enum { X2_EOI = 0x0b, X2_TPR = 0x08, X2_ICR = 0x30, X_ICR_HIGH = 0x31 };

static int apic_register_read(void *context, uint32_t vp_index, enum hv_apic_register reg,
			      uint64_t *ret)
{
	struct apic *a = &vcpu_of(context, vp_index)->apic;
	uint64_t high = 0;
	int error = apic_read(a, reg == HV_APIC_TPR ? X2_TPR : X2_ICR, clock_monotonic_ns(), ret);

	if (error || reg == HV_APIC_TPR || apic_is_x2(a))
		return error;
	error = apic_read(a, X_ICR_HIGH, clock_monotonic_ns(), &high);
	*ret |= high << 32;
	return error;
}

/*
 * The ICR's upper half is that of the mode: a destination in bits 31:24 in xAPIC mode, 32 bits in
 * x2APIC mode.
 */
static int apic_register_write(void *context, uint32_t vp_index, enum hv_apic_register reg,
			       uint64_t value)
{
	struct vcpu *vcpu = vcpu_of(context, vp_index);
	uint64_t now = clock_monotonic_ns();

	switch (reg) {
	case HV_APIC_EOI: return apic_write(&vcpu->apic, X2_EOI, 0, now);
	case HV_APIC_TPR:
		if (value >> 8)
			return -EINVAL;
		return apic_write(&vcpu->apic, X2_TPR, value, now);
	default:
		if (!apic_is_x2(&vcpu->apic))
			apic_write(&vcpu->apic, X_ICR_HIGH, value >> 32, now);
		return apic_write(&vcpu->apic, X2_ICR, value, now);
	}
}

static bool is_waiting(void *context, uint32_t vp_index)
{
	return vcpu_of(context, vp_index)->activity == VCPU_WAITS_FOR_SIPI;
}

static void idle(void *context, uint32_t vp_index)
{
	struct vcpu *vcpu = vcpu_of(context, vp_index);

	if (apic_has_interrupt(&vcpu->apic))
		return;
	vcpu->idle = true;
	engine_stop(vcpu->cpu, ENGINE_EXIT_KICK);
}

static void crashed(void *context, const char *text, size_t bytes, const uint64_t parameters[5])
{
	machine_crashed(context, text, bytes, parameters);
}

static void reset(void *context) { machine_finish(context, MACHINE_RESET); }

static void want_fork(void *context, bool is_wanted)
{
	const struct machine_options *options = &((struct machine *)context)->options;

	options->want_fork(options->context, is_wanted);
}

void machine_fork_ended(struct machine *machine, int error, uint32_t child)
{
	hv_fork_ended(machine->hv, error, child);
}

void machine_connect_hv(struct machine *machine, uint64_t tsc_hz)
{
	machine->hv_host = (struct hv_host){
		.get_state = get_state,
		.set_general = set_general,
		.xmm = xmm,
		.flush = flush,
		.memory_written = memory_written,
		.discard = discard,
		.holds = holds,
		.now_100ns = machine_now_100ns,
		.runtime_100ns = runtime_100ns,
		.yield = hv_host_yield,
		.place_overlay = place_overlay,
		.raise = raise_vector,
		.set_auto_eoi = set_auto_eoi,
		.apic_read = apic_register_read,
		.apic_write = apic_register_write,
		.is_waiting = is_waiting,
		.idle = idle,
		.crashed = crashed,
		.reset = reset,
		.want_fork = machine->options.want_fork ? want_fork : NULL,
		.context = machine,
		.lock = &machine->lock,
		.memory = &machine->memory,
		.tsc_hz = tsc_hz,
		.apic_hz = APIC_TIMER_HZ,
		.features = machine->options.hv_features,
		.cpus = machine->options.cpus,
	};
}

bool machine_hv_has_bus(uint64_t features)
{
	const uint64_t needs = 1ull << HV_SYNIC | 1ull << HV_MESSAGES | 1ull << HV_EVENTS;

	return (features & needs) == needs;
}

unsigned machine_hv_acpi_parts(const struct machine *machine)
{
	uint64_t features = machine->options.hv_features;

	/* a driver waits for who never answers */
	return (machine->devices ? ACPI_VMBUS : 0) |
	       (machine->devices && machine->options.display ? ACPI_DISPLAY : 0) |
	       (features >> HV_UMBRA & 1 ? ACPI_INFORMATION_PAGE : 0);
}

bool machine_parse_hv(const char *text, uint64_t *ret_features, char *ret_bad, size_t bad_bytes)
{
	const char *bad;
	size_t bytes;

	if (hv_parse_features(text, ret_features, &bad, &bytes))
		return true;
	snprintf(ret_bad, bad_bytes, "%.*s", (int)(bytes < bad_bytes ? bytes : bad_bytes), bad);
	return false;
}

const char *machine_hv_feature(unsigned n)
{
	return n < HV_FEATURES ? hv_feature_name((enum hv_feature)n) : NULL;
}
