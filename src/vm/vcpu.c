/*
 * One virtual processor: what its engine asks of the machine, and its run loop.
 *
 *   engine_run() --exits.c, which counts and traces-->
 *                --port, MMIO--> chipset.c, apic.c
 *                --MSR, CPUID--> hv/, machine_msr.c, cpu_model.c
 *                --hypercall---> hv/
 *                --exit--------> halt: sleep until an event   kick: look at what has changed
 *                                (before that: halt.c)
 *                                                             shutdown: the machine crashed
 *
 * engine_ops are called on the processor's own thread; each takes the machine's lock where it
 * touches more than the processor.
 *
 *   - Every processor has its thread from the beginning. All but the first sleep there until INIT
 *     and SIPI (interrupt.c notes them, take_init_and_startup() obeys them).
 *   - The task priority is one value: apic.tpr, whose upper half is CR8; the engine asks for it
 *     (get_cr8, set_cr8).
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "chipset/acpi.h"
#include "lib/archive.h"

enum {
	PAGE_SHIFT = 12, PAGE_MASK = 0xfff, APIC_REGISTER_SHIFT = 4, TPR_CLASS_SHIFT = 4,
	MMIO_BYTES = 8
};
enum {
	MSR_HV_FIRST = 0x40000000, MSR_HV_END = 0x40000200, MTRR_DEFAULT_TYPE = 0x2ff,
	MTRR_WRITE_BACK_ON = 0xc06
};
enum { DEBUG_EXIT_VALUES = 0x7f, CPUID_FEATURES = 1, FEATURES_EDX_APIC = 1 << 9 };
#define CPUID_AMD_FEATURES 0x80000001u
#define NS_PER_S 1000000000ull

/* ---- what the engine asks: ports and MMIO ---- */

static uint64_t on_port_read(void *context, uint16_t port, unsigned bytes)
{
	struct machine *machine = ((struct vcpu *)context)->machine;
	uint64_t value;

	((struct vcpu *)context)->devices_asked++;
	pthread_mutex_lock(&machine->lock);
	if (!machine->test_device ||
	    !test_device_port_read(machine->test_device, port, bytes, &value))
		value = chipset_port_read(&machine->chipset, port, bytes);
	pthread_mutex_unlock(&machine->lock);
	return value;
}

static void on_port_write(void *context, uint16_t port, unsigned bytes, uint64_t value)
{
	struct vcpu *vcpu = context;
	struct machine *machine = vcpu->machine;

	pthread_mutex_lock(&machine->lock);
	if (machine->options.debug_exit && port == machine->options.debug_exit) {
		machine->debug_exit_code = (int)(value & DEBUG_EXIT_VALUES) << 1 | 1;
		machine_finish(machine, MACHINE_DEBUG_EXIT);
	} else if (!machine->test_device ||
		   !test_device_port_write(machine->test_device, port, bytes, value)) {
		chipset_port_write(&machine->chipset, port, bytes, value);
	}
	pthread_mutex_unlock(&machine->lock);
}

/* Of the 8259s, which are the test device's. */
static bool has_external_interrupt(const struct vcpu *vcpu)
{
	const struct test_device *device = vcpu->machine->test_device;

	return device && vcpu->index == 0 && apic_takes_external(&vcpu->apic) &&
	       test_device_has_interrupt(device);
}

/* After a write to the local APIC: LINT0 may be open now. */
static void notice_external_interrupt(struct vcpu *vcpu)
{
	if (has_external_interrupt(vcpu))
		interrupt_notify(vcpu);
}

static bool is_ioapic(uint64_t gpa) { return gpa >> PAGE_SHIFT == IOAPIC_GPA >> PAGE_SHIFT; }
/* The page of registers is there in xAPIC mode only. */
static bool is_apic(const struct vcpu *vcpu, uint64_t gpa)
{
	return apic_mode(&vcpu->apic) == APIC_XAPIC &&
	       gpa >> PAGE_SHIFT == vcpu->apic.base >> PAGE_SHIFT;
}

static uint32_t apic_register_at(uint64_t gpa)
{
	return (uint32_t)(gpa & PAGE_MASK) >> APIC_REGISTER_SHIFT;
}

/* Under the lock. Where nothing answers all bits are set. */
static void mmio_read(struct vcpu *vcpu, uint64_t gpa, void *to, size_t bytes)
{
	struct machine *machine = vcpu->machine;
	uint64_t value = ~0ull;

	if (machine->test_device && test_device_read(machine->test_device, gpa, to, bytes))
		return;
	memset(to, 0xff, bytes);
	if (is_ioapic(gpa))
		value = chipset_ioapic_read(&machine->chipset, gpa & PAGE_MASK);
	else if (is_apic(vcpu, gpa))
		apic_read(&vcpu->apic, apic_register_at(gpa), clock_monotonic_ns(), &value);
	memcpy(to, &value, bytes < MMIO_BYTES ? bytes : MMIO_BYTES);
}

static void on_mmio_read(void *context, uint64_t gpa, void *to, size_t bytes)
{
	struct vcpu *vcpu = context;

	vcpu->devices_asked++;
	pthread_mutex_lock(&vcpu->machine->lock);
	mmio_read(vcpu, gpa, to, bytes);
	pthread_mutex_unlock(&vcpu->machine->lock);
}

/* Under the lock. */
static void mmio_write(struct vcpu *vcpu, uint64_t gpa, const void *from, size_t bytes)
{
	struct machine *machine = vcpu->machine;
	uint64_t value = 0;

	if (machine->test_device && test_device_write(machine->test_device, gpa, from, bytes))
		return;
	memcpy(&value, from, bytes < MMIO_BYTES ? bytes : MMIO_BYTES);
	if (is_ioapic(gpa))
		chipset_ioapic_write(&machine->chipset, gpa & PAGE_MASK, (uint32_t)value);
	else if (is_apic(vcpu, gpa))
		apic_write(&vcpu->apic, apic_register_at(gpa), value, clock_monotonic_ns());
	timer_arm(vcpu);
	notice_external_interrupt(vcpu);
}

static void on_mmio_write(void *context, uint64_t gpa, const void *from, size_t bytes)
{
	struct vcpu *vcpu = context;

	pthread_mutex_lock(&vcpu->machine->lock);
	mmio_write(vcpu, gpa, from, bytes);
	pthread_mutex_unlock(&vcpu->machine->lock);
}

/* ---- registers ---- */

static bool is_hv_msr(uint32_t msr) { return msr >= MSR_HV_FIRST && msr < MSR_HV_END; }

static int on_msr_read(void *context, uint32_t msr, uint64_t *ret)
{
	struct vcpu *vcpu = context;
	int error;

	if (is_hv_msr(msr))
		return hv_msr_read(vcpu->hv, msr, ret);
	pthread_mutex_lock(&vcpu->machine->lock);
	error = machine_msr_read(vcpu, msr, ret);
	pthread_mutex_unlock(&vcpu->machine->lock);
	return error;
}

static int on_msr_write(void *context, uint32_t msr, uint64_t value)
{
	struct vcpu *vcpu = context;
	bool timers = true;
	int error;

	if (is_hv_msr(msr)) {
		error = hv_msr_write(vcpu->hv, msr, value, &timers);
		if (!timers)
			return error;
		pthread_mutex_lock(&vcpu->machine->lock);
	} else {
		pthread_mutex_lock(&vcpu->machine->lock);
		error = machine_msr_write(vcpu, msr, value);
	}
	timer_arm(vcpu);
	notice_external_interrupt(vcpu);
	pthread_mutex_unlock(&vcpu->machine->lock);
	return error;
}

static void on_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
	struct vcpu *vcpu = context;
	struct engine_state state;

	if (hv_cpuid(vcpu->hv, leaf, registers)) {
		if (leaf == HV_UMBRA_LEAF_LOOK)
			devices_look(vcpu->machine->devices);
		if (leaf == HV_UMBRA_LEAF_LOOK && subleaf == HV_UMBRA_LOOK_WAITS)
			halt_waits_for_ports(vcpu);
		return;
	}
	engine_get(vcpu->cpu, ENGINE_CONTROL, &state);
	cpu_model_leaf(&vcpu->machine->model, leaf, subleaf, vcpu->index, state.x86.cr4,
		       state.x86.xcr0, registers);
	if ((leaf == CPUID_FEATURES || leaf == CPUID_AMD_FEATURES) &&
	    apic_mode(&vcpu->apic) == APIC_OFF)
		registers[3] &= ~(uint32_t)FEATURES_EDX_APIC;
}

/* ---- interrupts ---- */

uint8_t vcpu_task_priority_class(const struct vcpu *vcpu)
{
	return (vcpu->apic.tpr >> TPR_CLASS_SHIFT) & 15;
}

static int on_interrupt(void *context)
{
	struct vcpu *vcpu = context;
	int vector;

	pthread_mutex_lock(&vcpu->machine->lock);
	timer_arm(vcpu);
	vector = apic_take(&vcpu->apic);
	if (vector < 0 && has_external_interrupt(vcpu))
		vector = test_device_take_interrupt(vcpu->machine->test_device);
	pthread_mutex_unlock(&vcpu->machine->lock);
	assert(vector <= UINT8_MAX);
	return vector;
}

static uint8_t on_get_cr8(void *context)
{
	struct vcpu *vcpu = context;
	uint8_t value;

	pthread_mutex_lock(&vcpu->machine->lock);
	value = vcpu_task_priority_class(vcpu);
	pthread_mutex_unlock(&vcpu->machine->lock);
	return value;
}

static void on_set_cr8(void *context, uint8_t value)
{
	struct vcpu *vcpu = context;

	pthread_mutex_lock(&vcpu->machine->lock);
	vcpu->apic.tpr = (uint32_t)value << TPR_CLASS_SHIFT;
	pthread_mutex_unlock(&vcpu->machine->lock);
	engine_kick(vcpu->cpu);
}

static enum engine_call on_hypercall(void *context, const struct engine_call_registers *registers)
{
	struct vcpu *vcpu = context;
	enum engine_call call = hv_hypercall(vcpu->hv, registers);

	if (call == ENGINE_CALL_UNDEFINED && vcpu->machine->test_device) {
		registers->gpr[0] = TEST_DEVICE_NO_SUCH_CALL;
		return ENGINE_CALL_DONE;
	}
	return call;
}

const struct engine_ops vcpu_asked = {
	.port_read = on_port_read, .port_write = on_port_write, .mmio_read = on_mmio_read,
	.mmio_write = on_mmio_write,
	.msr_read = on_msr_read, .msr_write = on_msr_write, .cpuid = on_cpuid,
	.interrupt = on_interrupt, .get_cr8 = on_get_cr8, .set_cr8 = on_set_cr8,
	.hypercall = on_hypercall,
};

/* ---- reset, INIT, SIPI ---- */

/* The state after INIT (SDM table 9-1). */
static void startup_state(struct x86_state *state, uint32_t signature)
{
	const struct x86_segment_state data = { .attributes = 0x93, .limit = 0xffff };
	uint64_t tsc_offset = state->tsc_offset;

	memset(state, 0, sizeof(*state));
	for (int n = 0; n < X86_SEGMENTS; n++)
		state->segment[n] = data;
	state->segment[X86_CS] = (struct x86_segment_state){
		.selector = 0xf000, .base = 0xffff0000, .attributes = 0x9b, .limit = 0xffff
	};
	state->tr = (struct x86_segment_state){ .attributes = 0x8b, .limit = 0xffff };
	state->ldtr = (struct x86_segment_state){ .attributes = 0x82, .limit = 0xffff };
	state->gdtr.limit = state->idtr.limit = 0xffff;
	state->cr0 = 0x60000010;
	state->gpr[2] = signature;
	state->xcr0 = 1;
	state->pat = 0x0007040600070406;
	state->dr[6] = 0xffff0ff0;
	state->dr[7] = 0x400;
	state->rflags = 2;
	state->tsc_offset = tsc_offset;
}

void vcpu_reset(struct vcpu *vcpu)
{
	struct engine_state state = { .nmi_pending = false };
	uint64_t base = vcpu->apic.base;

	engine_get(vcpu->cpu, ENGINE_MSRS, &state);
	startup_state(&state.x86, vcpu->machine->model.signature);
	engine_set(vcpu->cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	apic_reset(&vcpu->apic, &vcpu->machine->apic_host, vcpu, vcpu->index, vcpu->index == 0);
	if (base)
		vcpu->apic.base = base; /* INIT leaves the mode */
	vcpu->mtrr[MTRR_DEFAULT_TYPE - MTRRS] = MTRR_WRITE_BACK_ON;
}

/* INIT, then SIPI, in the order in which they came; on the processor's thread, under the lock. */
static void take_init_and_startup(struct vcpu *vcpu)
{
	struct engine_state state;

	vcpu->halted &= !vcpu->init_pending && !vcpu->start_pending;
	if (vcpu->init_pending)
		vcpu_reset(vcpu);
	if (vcpu->start_pending) {
		engine_get(vcpu->cpu, ENGINE_SEGMENTS | ENGINE_GENERAL, &state);
		state.x86.segment[X86_CS].selector = (uint16_t)(vcpu->sipi_vector << 8);
		state.x86.segment[X86_CS].base = (uint64_t)vcpu->sipi_vector << PAGE_SHIFT;
		state.x86.rip = 0;
		engine_set(vcpu->cpu, ENGINE_SEGMENTS | ENGINE_GENERAL, &state);
	}
	vcpu->init_pending = vcpu->start_pending = false;
}

/* ---- the run loop ---- */

static bool has_wake_event(const struct vcpu *vcpu)
{
	struct engine_state state;

	engine_get(vcpu->cpu, ENGINE_GENERAL, &state);
	if (apic_has_interrupt(&vcpu->apic) && (state.x86.rflags & FLAG_IF || vcpu->idle))
		return true;
	if (state.x86.rflags & FLAG_IF && has_external_interrupt(vcpu))
		return true;
	return engine_has_nmi(vcpu->cpu);
}

static bool must_sleep(const struct vcpu *vcpu)
{
	if (machine_has_ended(vcpu->machine))
		return false;
	if (vcpu->activity == VCPU_WAITS_FOR_SIPI)
		return true;
	return (vcpu->halted || vcpu->idle) && !has_wake_event(vcpu);
}

uint64_t vcpu_runtime_100ns(const struct vcpu *vcpu)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return vcpu->runtime_before_100ns + (uint64_t)used.tv_sec * (NS_PER_S / 100) +
	       (uint64_t)used.tv_nsec / 100;
}

void vcpu_stand(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;

	if (vcpu->stands)
		return;
	assert(machine->standing < machine->options.cpus);
	vcpu->stands = true;
	machine->standing++;
	if (machine->standing == machine->options.cpus)
		pthread_cond_signal(&machine->changed);
}

static void go_on(struct vcpu *vcpu)
{
	if (!vcpu->stands)
		return;
	assert(vcpu->machine->standing);
	vcpu->stands = false;
	vcpu->machine->standing--;
}

/* Under the lock: while the machine is paused. */
static void stand_still(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;

	if (machine_is_still(machine))
		vcpu->runtime_100ns = vcpu_runtime_100ns(vcpu);
	while (machine_is_still(machine)) {
		vcpu_stand(vcpu);
		look_take(vcpu);
		pthread_cond_wait(&vcpu->wake, &machine->lock);
	}
	go_on(vcpu);
}

static void wait_until(struct vcpu *vcpu, uint64_t deadline_ns)
{
	const struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
					   .tv_nsec = (long)(deadline_ns % NS_PER_S) };

	if (deadline_ns == UINT64_MAX)
		pthread_cond_wait(&vcpu->wake, &vcpu->machine->lock);
	else
		pthread_cond_timedwait(&vcpu->wake, &vcpu->machine->lock, &deadline);
}

/* Then stand_still(), before anything else: meanwhile it may be said to stand (machine_move()). */
static void sleep_until(struct vcpu *vcpu, uint64_t deadline_ns)
{
	vcpu->runtime_100ns = vcpu_runtime_100ns(vcpu);
	vcpu->sleeps = true;
	wait_until(vcpu, deadline_ns);
	vcpu->sleeps = false;
}

static void sleep_until_event(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;

	pthread_mutex_lock(&machine->lock);
	if (vcpu->halted)
		machine_flush_console(machine);
	for (;;) {
		uint64_t next;

		stand_still(vcpu);
		look_take(vcpu);
		next = vcpu->activity == VCPU_RUNNING ? timer_run(vcpu) : UINT64_MAX;
		take_init_and_startup(vcpu);
		if (!must_sleep(vcpu))
			break;
		stuck_look(vcpu);
		if (!halt_looks(vcpu, next))
			sleep_until(vcpu, next);
	}
	halt_ends(vcpu);
	vcpu->idle = vcpu->halted = false;
	pthread_mutex_unlock(&machine->lock);
	engine_kick(vcpu->cpu);
}

static void vcpu_run(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;

	sleep_until_event(vcpu);
	thread_leave_processor(&vcpu->thread);
	while (!machine_has_ended(machine)) {
		switch (engine_run(vcpu->cpu)) {
		case ENGINE_EXIT_HALT: {
			struct exit halt = exit_begin(vcpu, TRACE_HALT);

			vcpu->halted = true;
			sleep_until_event(vcpu);
			exit_end(&halt, 0, 0);
			break;
		}
		case ENGINE_EXIT_SHUTDOWN:
			pthread_mutex_lock(&machine->lock);
			stuck_triple_fault(vcpu);
			pthread_mutex_unlock(&machine->lock);
			break;
		default: {
			struct exit kick = exit_begin(vcpu, TRACE_KICK);

			sleep_until_event(vcpu);
			exit_end(&kick, 0, 0);
		}
		}
	}
}

/* ---- the thread ---- */

/* With system calls that the process has no right to later. */
static int vcpu_prepare_thread(struct vcpu *vcpu)
{
	int error = engine_prepare_thread(vcpu->cpu);

	return error ? error : timer_prepare_thread(vcpu);
}

static void vcpu_wait_for_begin(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->machine->lock);
	while (!machine_has_begun(vcpu->machine))
		pthread_cond_wait(&vcpu->wake, &vcpu->machine->lock);
	pthread_mutex_unlock(&vcpu->machine->lock);
}

/* In a forked machine that has begun, and stands still until machine_fork_go(). */
void vcpu_thread(void *self)
{
	struct vcpu *vcpu = self;

	vcpu->error = vcpu_prepare_thread(vcpu);
	if (!vcpu->machine->is_forked) /* there who has stood still is met (machine_fork.c) */
		pthread_barrier_wait(&vcpu->machine->prepared);
	vcpu_wait_for_begin(vcpu);
	vcpu_run(vcpu);
}

/* ---- the unit ---- */

static void mtrr_archive(struct archive *archive, struct vcpu *vcpu)
{
	archive_u64s(archive, vcpu->mtrr, 0x10);
	archive_u64s(archive, vcpu->mtrr + 0x50, 0x20);
	archive_u64(archive, &vcpu->mtrr[MTRR_DEFAULT_TYPE - MTRRS]);
}

enum { NMI_PENDING = 1, NMI_BLOCKED = 2 }; /* in the archive */

static bool uses_pae_paging(const struct x86_state *state)
{
	return state->cr0 & CR0_PG && state->cr4 & CR4_PAE && !(state->efer & EFER_LMA);
}

static void vcpu_archive(struct archive *archive, void *self)
{
	struct vcpu *vcpu = self;
	uint32_t activity = vcpu->activity;
	struct engine_state state;
	uint32_t nmi;

	engine_get(vcpu->cpu, ENGINE_ALL, &state);
	state.x86.cr8 = vcpu_task_priority_class(vcpu);
	nmi = (state.nmi_pending ? NMI_PENDING : 0) | (state.nmi_blocked ? NMI_BLOCKED : 0);
	archive_u32(archive, &activity);
	archive_bool(archive, &vcpu->init_pending);
	archive_bool(archive, &vcpu->start_pending);
	archive_bool(archive, &vcpu->idle);
	archive_bool(archive, &vcpu->halted);
	archive_u8(archive, &vcpu->sipi_vector);
	archive_u64(archive, &vcpu->runtime_100ns);
	archive_u32(archive, &nmi);
	archive_check(archive,
		      activity <= VCPU_WAITS_FOR_SIPI && nmi <= (NMI_PENDING | NMI_BLOCKED));
	x86_state_archive(archive, &state.x86);
	archive_bytes(archive, state.vector, ENGINE_VECTOR_BYTES);
	mtrr_archive(archive, vcpu);
	archive_u64s(archive, vcpu->model_registers, CPU_MODEL_REGISTERS);
	apic_archive(archive, &vcpu->apic, clock_moment(vcpu->machine).ns);
	if (archive->version != 1) {
		x86_state_archive_2(archive, &state.x86);
		apic_archive_2(archive, &vcpu->apic);
	} else if (uses_pae_paging(&state.x86)) {
		archive_fail(archive, -ENOTSUP,
			     "it was saved under PAE paging by an Umbra that kept no entries "
			     "of it");
	}
	if (!archive->loading || archive->error)
		return;
	vcpu->activity = (enum vcpu_activity)activity;
	vcpu->runtime_before_100ns = vcpu->runtime_100ns;
	state.nmi_pending = nmi & NMI_PENDING;
	state.nmi_blocked = nmi & NMI_BLOCKED;
	archive_check(archive, !engine_set(vcpu->cpu, ENGINE_ALL, &state));
}

static void vcpu_stood(void *self, uint64_t ns) { apic_stood(&((struct vcpu *)self)->apic, ns); }

static size_t vcpu_statistics(const void *self, char *text, size_t bytes)
{
	const struct vcpu *vcpu = self;
	size_t used = vcpu->index ? 0 : exits_statistics(vcpu->machine, text, bytes);

	return used + engine_statistics(vcpu->cpu, text + used, bytes - used);
}

static const struct unit_ops vcpu_unit = {
	.name = "processor", .section = UNIT_SECTION('C', 'P', 'U', ' '), .numbered = true,
	.archive = vcpu_archive, .stood = vcpu_stood, .statistics = vcpu_statistics,
};

static void wake_make(struct vcpu *vcpu)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&vcpu->wake, &attributes);
	pthread_condattr_destroy(&attributes);
}

void vcpu_forked(struct vcpu *vcpu)
{
	wake_make(vcpu);
	vcpu->sleeps = vcpu->stands = false;
	vcpu->armed_ns = 0;
	vcpu->runtime_before_100ns = vcpu->runtime_100ns;
}

int vcpu_make(struct machine *machine, unsigned index)
{
	struct vcpu *vcpu = &machine->vcpus[index];

	assert(index < MACHINE_MAX_CPUS && machine->engine && machine->hv);
	vcpu->machine = machine;
	vcpu->index = index;
	vcpu->cpu = engine_cpu_create(machine->engine, &exits_engine_ops, vcpu);
	if (!vcpu->cpu)
		return -ENOMEM;
	vcpu->hv = hv_partition_cpu(machine->hv, index);
	vcpu->brief.is_far = vcpu->asked.is_far = machine->options.ports;
	vcpu->activity = index ? VCPU_WAITS_FOR_SIPI : VCPU_RUNNING;
	cpu_model_reset(&machine->model, vcpu->model_registers);
	vcpu_reset(vcpu);
	if (machine->options.test_device && index == 0)
		apic_set_virtual_wire(&vcpu->apic);
	wake_make(vcpu);
	unit_add(&machine->units, &vcpu_unit, vcpu, index);
	return 0;
}
