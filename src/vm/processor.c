/*
 * One virtual processor: what its engine asks of the machine, its timers, its run loop, and interrupts between processors.
 *
 * Time: while the processor runs, a POSIX timer signals its own thread, whose handler only kicks the engine; while it halts, it
 * sleeps on a condition until the next deadline or a notification.
 */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine_internal.h"

#include "chipset/acpi.h"
#include "x86/cpuid.h"

enum { ICR_LOGICAL = 1 << 11, ICR_DEASSERT_LEVEL = 1 << 15, ICR_ASSERT = 1 << 14 };
enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_STARTUP };
enum { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

static __thread struct processor *own_processor;

/* ---- time ---------------------------------------------------------------------------------------------------------------------- */

/* Fires what is due; the next deadline in monotonic nanoseconds. */
static uint64_t run_timers(struct processor *p)
{
	struct machine *m = p->machine;
	uint64_t now = machine_now_ns(), hv_now = machine_now_100ns(m), due = hv_run_timers(p->hv), next = apic_run_timer(&p->apic, now);

	if (p->apic.tsc_deadline) {
		uint64_t t = machine_tsc() + engine_cpu_state(p->cpu)->tsc_offset;

		if (t >= p->apic.tsc_deadline) {
			p->apic.tsc_deadline = 0;
			if (!(p->apic.lvt[0] & 0x10000))
				apic_raise(&p->apic, (uint8_t)p->apic.lvt[0]);
		} else {
			uint64_t at = now + (uint64_t)((unsigned __int128)(p->apic.tsc_deadline - t) * 1000000000 / m->hv_host.tsc_hz);

			next = at < next ? at : next;
		}
	}
	if (due != UINT64_MAX) {
		uint64_t at = due <= hv_now ? now : now + (due - hv_now) * 100;

		next = at < next ? at : next;
	}
	return next;
}

/*
 * Setting the host's timer is a system call: one that is set for an earlier time, and has still to come, is left as it is. It then
 * comes for nothing, once, and is set anew.
 */
void processor_arm(struct processor *p)
{
	uint64_t next = run_timers(p), now;
	struct itimerspec t = { 0 };

	if (apic_has_interrupt(&p->apic))
		engine_kick(p->cpu);
	if (next == UINT64_MAX || next == p->armed_ns)
		return;
	now = machine_now_ns();
	if (p->armed_ns > now && p->armed_ns < next)
		return;
	p->armed_ns = next;
	t.it_value.tv_sec = (time_t)(next / 1000000000);
	t.it_value.tv_nsec = (long)(next % 1000000000);
	timer_settime(p->timer, TIMER_ABSTIME, &t, NULL);
}

static void on_timer(int number)
{
	int saved = errno;

	(void)number;
	if (own_processor)
		engine_kick(own_processor->cpu);
	errno = saved;
}

int processor_prepare_thread(struct processor *p)
{
	struct sigaction action = { .sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
	int error = engine_prepare_thread(p->cpu);

	if (error)
		return error;
	event._sigev_un._tid = (int)syscall(SYS_gettid);
	own_processor = p;
	prctl(PR_SET_TIMERSLACK, 1); /* the default lets a halted processor sleep 50 us too long */
	sigaction(SIGRTMIN, &action, NULL);
	return timer_create(CLOCK_MONOTONIC, &event, &p->timer) ? -errno : 0;
}

/* ---- interrupts ------------------------------------------------------------------------------------------------------------------ */

void processor_notify(struct processor *p)
{
	pthread_cond_signal(&p->wake);
	engine_kick(p->cpu);
}

static void deliver(struct processor *p, unsigned mode, uint8_t vector)
{
	switch (mode) {
	case MODE_FIXED: case MODE_LOWEST:
		apic_raise(&p->apic, vector);
		break;
	case MODE_NMI:
		if (p->activity == PROCESSOR_RUNNING)
			engine_nmi(p->cpu);
		break;
	case MODE_INIT:
		p->activity = PROCESSOR_WAITS_FOR_SIPI;
		p->init_pending = true;
		p->start_pending = false;
		engine_stop(p->cpu, ENGINE_EXIT_KICK);
		break;
	case MODE_STARTUP:
		if (p->activity != PROCESSOR_WAITS_FOR_SIPI)
			return;
		p->activity = PROCESSOR_RUNNING;
		p->start_pending = true;
		p->sipi_vector = vector;
		break;
	default: return;
	}
	processor_notify(p);
}

void processor_send(struct machine *m, struct processor *from, uint32_t low, uint32_t destination)
{
	unsigned mode = low >> 8 & 7, shorthand = low >> 18 & 3;

	if (mode == MODE_INIT && low & ICR_DEASSERT_LEVEL && !(low & ICR_ASSERT))
		return;
	for (unsigned n = 0; n < m->options.cpus; n++) {
		struct processor *p = &m->processors[n];
		bool hit = shorthand == TO_ALL || (shorthand == TO_SELF && p == from) || (shorthand == TO_OTHERS && p != from) ||
			   (shorthand == TO_DESTINATION && apic_is_destination(&p->apic, low & ICR_LOGICAL, destination));

		if (!hit)
			continue;
		deliver(p, mode, (uint8_t)low);
		if (mode == MODE_LOWEST)
			return;
	}
}

/* ---- what the engine asks ---------------------------------------------------------------------------------------------------- */

static uint64_t on_port_read(void *context, uint16_t port, unsigned bytes)
{
	struct processor *p = context;
	uint64_t v;

	pthread_mutex_lock(&p->machine->lock);
	if (!p->machine->test_device || !test_device_port_read(p->machine->test_device, port, bytes, &v))
		v = chipset_port_read(&p->machine->chipset, port, bytes);
	pthread_mutex_unlock(&p->machine->lock);
	return v;
}

static void on_port_write(void *context, uint16_t port, unsigned bytes, uint64_t value)
{
	struct processor *p = context;
	struct machine *m = p->machine;

	pthread_mutex_lock(&m->lock);
	if (m->options.debug_exit && port == m->options.debug_exit) {
		m->debug_exit_code = (int)(value & 0x7f) << 1 | 1;
		machine_finish(m, MACHINE_DEBUG_EXIT);
	} else if (!m->test_device || !test_device_port_write(m->test_device, port, bytes, value)) {
		chipset_port_write(&m->chipset, port, bytes, value);
	}
	pthread_mutex_unlock(&m->lock);
}

static void on_mmio_read(void *context, uint64_t gpa, void *to, size_t bytes)
{
	struct processor *p = context;
	uint64_t v = ~0ull;

	memset(to, 0xff, bytes);
	pthread_mutex_lock(&p->machine->lock);
	if (p->machine->test_device && test_device_read(p->machine->test_device, gpa, to, bytes)) {
		pthread_mutex_unlock(&p->machine->lock);
		return;
	}
	if (gpa >> 12 == IOAPIC_GPA >> 12)
		v = chipset_ioapic_read(&p->machine->chipset, gpa & 0xfff);
	else if (gpa >> 12 == p->apic.base >> 12)
		apic_read(&p->apic, (uint32_t)(gpa & 0xfff) >> 4, machine_now_ns(), &v);
	pthread_mutex_unlock(&p->machine->lock);
	memcpy(to, &v, bytes < 8 ? bytes : 8);
}

static void on_mmio_write(void *context, uint64_t gpa, const void *from, size_t bytes)
{
	struct processor *p = context;
	uint64_t v = 0;

	memcpy(&v, from, bytes < 8 ? bytes : 8);
	pthread_mutex_lock(&p->machine->lock);
	if (p->machine->test_device && test_device_write(p->machine->test_device, gpa, from, bytes)) {
		pthread_mutex_unlock(&p->machine->lock);
		return;
	}
	if (gpa >> 12 == IOAPIC_GPA >> 12)
		chipset_ioapic_write(&p->machine->chipset, gpa & 0xfff, (uint32_t)v);
	else if (gpa >> 12 == p->apic.base >> 12)
		apic_write(&p->apic, (uint32_t)(gpa & 0xfff) >> 4, v, machine_now_ns());
	processor_arm(p);
	pthread_mutex_unlock(&p->machine->lock);
}

static bool is_hv_msr(uint32_t msr) { return msr >= MSR_HV_FIRST && msr < MSR_HV_END; }

static int on_msr_read(void *context, uint32_t msr, uint64_t *ret)
{
	struct processor *p = context;
	int error;

	if (is_hv_msr(msr))
		return hv_msr_read(p->hv, msr, ret);
	pthread_mutex_lock(&p->machine->lock);
	error = machine_msr_read(p, msr, ret);
	pthread_mutex_unlock(&p->machine->lock);
	return error;
}

static int on_msr_write(void *context, uint32_t msr, uint64_t v)
{
	struct processor *p = context;
	bool timers = true;
	int error;

	if (is_hv_msr(msr)) {
		error = hv_msr_write(p->hv, msr, v, &timers);
		if (!timers)
			return error;
		pthread_mutex_lock(&p->machine->lock);
	} else {
		pthread_mutex_lock(&p->machine->lock);
		error = machine_msr_write(p, msr, v);
	}
	processor_arm(p);
	pthread_mutex_unlock(&p->machine->lock);
	return error;
}

static void on_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	struct processor *p = context;
	struct x86_state *s = engine_cpu_state(p->cpu);

	if (hv_cpuid(p->hv, leaf, r))
		return;
	cpuid_policy(leaf, subleaf, p->index, p->machine->options.cpus, r);
	cpuid_limit(&p->machine->model, leaf, subleaf, r);
	if (leaf == 1)
		r[2] = (r[2] & ~(1u << 27)) | (s->cr4 & CR4_OSXSAVE ? 1u << 27 : 0);
	if (leaf == 0xd && subleaf == 0)
		r[1] = s->xcr0 & 4 ? 832 : 576;
}

static int on_interrupt(void *context)
{
	struct processor *p = context;
	int vector;

	pthread_mutex_lock(&p->machine->lock);
	processor_arm(p);
	p->apic.tpr = (uint32_t)engine_cpu_state(p->cpu)->cr8 << 4;
	vector = apic_take(&p->apic);
	pthread_mutex_unlock(&p->machine->lock);
	return vector;
}

static void on_cr8(void *context, uint8_t value)
{
	struct processor *p = context;

	pthread_mutex_lock(&p->machine->lock);
	p->apic.tpr = (uint32_t)value << 4;
	pthread_mutex_unlock(&p->machine->lock);
	engine_kick(p->cpu);
}

static enum engine_call on_hypercall(void *context) { return hv_hypercall(((struct processor *)context)->hv); }

const struct engine_ops processor_engine_ops = {
	on_port_read, on_port_write, on_mmio_read, on_mmio_write, on_msr_read, on_msr_write, on_cpuid, on_interrupt, on_cr8, on_hypercall,
};

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

/* The state after INIT (SDM table 9-1). */
static void startup_state(struct x86_state *s)
{
	const struct x86_segment_state data = { .attributes = 0x93, .limit = 0xffff };
	uint64_t tsc_offset = s->tsc_offset;

	memset(s, 0, sizeof(*s));
	for (int n = 0; n < X86_SEGMENTS; n++)
		s->segment[n] = data;
	s->segment[X86_CS] = (struct x86_segment_state){ .selector = 0xf000, .base = 0xffff0000, .attributes = 0x9b, .limit = 0xffff };
	s->tr = (struct x86_segment_state){ .attributes = 0x8b, .limit = 0xffff };
	s->ldtr = (struct x86_segment_state){ .attributes = 0x82, .limit = 0xffff };
	s->gdtr.limit = s->idtr.limit = 0xffff;
	s->cr0 = 0x60000010;
	s->gpr[2] = 0x600; /* a family 6 signature, as after INIT */
	s->xcr0 = 1;
	s->pat = 0x0007040600070406;
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	s->code_bits = 16;
	s->rflags = 2;
	s->tsc_offset = tsc_offset;
}

void processor_reset(struct processor *p)
{
	uint64_t base = p->apic.base;

	startup_state(engine_cpu_state(p->cpu));
	engine_reset(p->cpu);
	apic_reset(&p->apic, &p->machine->apic_host, p, p->index, p->index == 0);
	if (base)
		p->apic.base = base; /* INIT leaves the mode */
	p->mtrr[0xff] = 0xc06;
}

/* INIT, then SIPI, in the order in which they came; on the processor's thread, under the lock. */
static void take_init_and_startup(struct processor *p)
{
	struct x86_segment_state *cs = &engine_cpu_state(p->cpu)->segment[X86_CS];

	if (p->init_pending)
		processor_reset(p);
	if (p->start_pending) {
		cs->selector = (uint16_t)(p->sipi_vector << 8);
		cs->base = (uint64_t)p->sipi_vector << 12;
		engine_cpu_state(p->cpu)->rip = 0;
	}
	p->init_pending = p->start_pending = false;
}

static bool must_sleep(const struct processor *p)
{
	bool wakes = (apic_has_interrupt(&p->apic) && (engine_cpu_state(p->cpu)->interrupt_flag || p->idle)) || engine_has_nmi(p->cpu);

	return !p->machine->end && (p->activity == PROCESSOR_WAITS_FOR_SIPI || ((p->halted || p->idle) && !wakes));
}

uint64_t processor_runtime_100ns(const struct processor *p)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return p->runtime_before_100ns + (uint64_t)t.tv_sec * 10000000 + (uint64_t)t.tv_nsec / 100;
}

/* Under the lock: while the machine is paused. */
static void stand_still(struct processor *p)
{
	struct machine *m = p->machine;

	if (!m->pause || m->end)
		return;
	p->runtime_100ns = processor_runtime_100ns(p);
	m->standing++;
	pthread_cond_signal(&m->quiet);
	while (m->pause && !m->end)
		pthread_cond_wait(&p->wake, &m->lock);
	m->standing--;
}

static void sleep_until_event(struct processor *p)
{
	struct machine *m = p->machine;

	pthread_mutex_lock(&m->lock);
	if (p->halted)
		machine_flush_console(m);
	for (;;) {
		struct timespec t;
		uint64_t next;

		stand_still(p);
		next = p->activity == PROCESSOR_RUNNING ? run_timers(p) : UINT64_MAX;
		p->halted &= !p->init_pending && !p->start_pending;
		take_init_and_startup(p);
		if (!must_sleep(p))
			break;
		t = (struct timespec){ (time_t)(next / 1000000000), (long)(next % 1000000000) };
		if (next == UINT64_MAX)
			pthread_cond_wait(&p->wake, &m->lock);
		else
			pthread_cond_timedwait(&p->wake, &m->lock, &t);
	}
	p->idle = p->halted = false;
	pthread_mutex_unlock(&m->lock);
	engine_kick(p->cpu);
}

void processor_run(struct processor *p)
{
	struct machine *m = p->machine;

	sleep_until_event(p);
	while (!__atomic_load_n(&m->end, __ATOMIC_ACQUIRE)) {
		switch (engine_run(p->cpu)) {
		case ENGINE_EXIT_HALT:
			p->halted = true;
			sleep_until_event(p);
			break;
		case ENGINE_EXIT_SHUTDOWN:
			pthread_mutex_lock(&m->lock);
			machine_finish(m, MACHINE_CRASHED);
			pthread_mutex_unlock(&m->lock);
			break;
		default: sleep_until_event(p);
		}
	}
}
