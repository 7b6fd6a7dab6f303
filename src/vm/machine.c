/*
 * Assembly and run loop. One lock guards the devices and the APIC; the processor thread takes it in every engine_ops call, the
 * input thread in machine_input(). Timers: while the processor runs, a POSIX timer signals its own thread, whose handler only
 * kicks the engine; while it halts, it sleeps on a condition until the next deadline.
 */
#include "machine.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../chipset/acpi.h"
#include "../chipset/chipset.h"
#include "../engine/engine.h"
#include "../hv/hv.h"
#include "../x86/apic.h"
#include "../x86/cpuid.h"
#include "../x86/state.h"

#define LOW_MEMORY_MAX 0xc0000000ull
enum { MTRRS = 0x210, CONSOLE_BYTES = 512 };

struct machine {
	struct machine_options options;
	struct boot_memory memory;
	struct engine *engine;
	struct engine_cpu *cpu;
	struct apic apic;
	struct hv_host hv_host;
	struct hv_cpu hv;
	struct chipset_host chipset_host;
	struct chipset chipset;
	uint64_t tsc_start, mtrr[MTRRS + 0x100];
	uint64_t armed_ns;
	timer_t timer;
	bool has_timer, awake;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	volatile int end; /* enum machine_end + 1 */
	char crash_text[4097];
	uint8_t console[CONSOLE_BYTES];
	size_t console_used;
};

static __thread struct machine *own_machine;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static uint64_t measure_tsc_hz(void)
{
	uint64_t n0 = now_ns(), t0 = tsc(), n1, t1;

	do {
		n1 = now_ns();
		t1 = tsc();
	} while (n1 - n0 < 20000000);
	return (uint64_t)((unsigned __int128)(t1 - t0) * 1000000000 / (n1 - n0)) / 10000 * 10000;
}

static uint64_t now_100ns(void *context)
{
	struct machine *m = context;

	return (uint64_t)((unsigned __int128)(tsc() - m->tsc_start) * 10000000 / m->hv_host.tsc_hz);
}

static void finish(struct machine *m, enum machine_end end)
{
	if (!m->end)
		m->end = (int)end + 1;
	engine_stop(m->cpu, ENGINE_EXIT_STOP);
}

/* ---- what devices ask of the machine --------------------------------------------------------------------------------------- */

static void raise_vector(void *context, uint8_t vector)
{
	struct machine *m = context;

	apic_raise(&m->apic, vector);
	m->awake = true;
	pthread_cond_signal(&m->wake);
	engine_kick(m->cpu);
}

static void raise_at(void *context, uint32_t apic_id, uint8_t vector)
{
	(void)apic_id;
	raise_vector(context, vector);
}

static void flush_console(struct machine *m)
{
	if (m->console_used)
		m->options.console(m->options.context, m->console, m->console_used);
	m->console_used = 0;
}

static void console_byte(void *context, uint8_t byte)
{
	struct machine *m = context;

	m->console[m->console_used++] = byte;
	if (byte == '\n' || m->console_used == CONSOLE_BYTES)
		flush_console(m);
}

static void power_off(void *context) { finish(context, MACHINE_POWERED_OFF); }
static void reset(void *context) { finish(context, MACHINE_RESET); }

static uint8_t *guest_page(void *context, uint64_t gpa)
{
	struct machine *m = context;

	if (gpa + 4096 <= m->memory.low_bytes)
		return m->memory.ram + gpa;
	if (gpa >= 1ull << 32 && gpa - (1ull << 32) + 4096 <= m->memory.ram_bytes - m->memory.low_bytes)
		return m->memory.ram + m->memory.low_bytes + (gpa - (1ull << 32));
	return NULL;
}

static void page_written(void *context, uint64_t gpa)
{
	struct machine *m = context;

	engine_memory_written(m->engine, gpa, 4096);
}

static void crashed(void *context, const char *text, size_t bytes, const uint64_t parameters[5])
{
	struct machine *m = context;

	if (bytes)
		memcpy(m->crash_text, text, bytes);
	else
		snprintf(m->crash_text, sizeof(m->crash_text), "crash parameters %lx %lx %lx %lx %lx", parameters[0], parameters[1],
			 parameters[2], parameters[3], parameters[4]);
	finish(m, MACHINE_CRASHED);
}

/* ---- time ---------------------------------------------------------------------------------------------------------------------- */

/* Fires what is due; the next deadline in monotonic nanoseconds. */
static uint64_t run_timers(struct machine *m)
{
	uint64_t now = now_ns(), hv_now = now_100ns(m), due = hv_run_timers(&m->hv), next = apic_run_timer(&m->apic, now);

	if (m->apic.tsc_deadline) {
		uint64_t t = tsc() + engine_cpu_state(m->cpu)->tsc_offset;

		if (t >= m->apic.tsc_deadline) {
			m->apic.tsc_deadline = 0;
			if (!(m->apic.lvt[0] & 0x10000))
				apic_raise(&m->apic, (uint8_t)m->apic.lvt[0]);
		} else {
			uint64_t at = now + (uint64_t)((unsigned __int128)(m->apic.tsc_deadline - t) * 1000000000 / m->hv_host.tsc_hz);

			next = at < next ? at : next;
		}
	}
	if (due != UINT64_MAX) {
		uint64_t at = due <= hv_now ? now : now + (due - hv_now) * 100;

		next = at < next ? at : next;
	}
	return next;
}

static void arm(struct machine *m)
{
	uint64_t next = run_timers(m);
	struct itimerspec t = { 0 };

	if (apic_has_interrupt(&m->apic))
		engine_kick(m->cpu);
	if (next == UINT64_MAX || next == m->armed_ns)
		return;
	m->armed_ns = next;
	t.it_value.tv_sec = (time_t)(next / 1000000000);
	t.it_value.tv_nsec = (long)(next % 1000000000);
	timer_settime(m->timer, TIMER_ABSTIME, &t, NULL);
}

static void on_timer(int number)
{
	int saved = errno;

	(void)number;
	if (own_machine) {
		own_machine->armed_ns = 0;
		engine_kick(own_machine->cpu);
	}
	errno = saved;
}

static int make_timer(struct machine *m)
{
	struct sigaction action = { .sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };

	event._sigev_un._tid = (int)syscall(SYS_gettid);
	own_machine = m;
	sigaction(SIGRTMIN, &action, NULL);
	if (timer_create(CLOCK_MONOTONIC, &event, &m->timer))
		return -errno;
	m->has_timer = true;
	return 0;
}

/* ---- what the engine asks ---------------------------------------------------------------------------------------------------- */

static uint64_t on_port_read(void *context, uint16_t port, unsigned bytes)
{
	struct machine *m = context;
	uint64_t v;

	pthread_mutex_lock(&m->lock);
	v = chipset_port_read(&m->chipset, port, bytes);
	pthread_mutex_unlock(&m->lock);
	return v;
}

static void on_port_write(void *context, uint16_t port, unsigned bytes, uint64_t value)
{
	struct machine *m = context;

	pthread_mutex_lock(&m->lock);
	chipset_port_write(&m->chipset, port, bytes, value);
	pthread_mutex_unlock(&m->lock);
}

static void on_mmio_read(void *context, uint64_t gpa, void *to, size_t bytes)
{
	struct machine *m = context;
	uint64_t v = ~0ull;

	memset(to, 0xff, bytes);
	pthread_mutex_lock(&m->lock);
	if (gpa >> 12 == IOAPIC_GPA >> 12)
		v = chipset_ioapic_read(&m->chipset, gpa & 0xfff);
	else if (gpa >> 12 == m->apic.base >> 12)
		apic_read(&m->apic, (uint32_t)(gpa & 0xfff) >> 4, now_ns(), &v);
	pthread_mutex_unlock(&m->lock);
	memcpy(to, &v, bytes < 8 ? bytes : 8);
}

static void on_mmio_write(void *context, uint64_t gpa, const void *from, size_t bytes)
{
	struct machine *m = context;
	uint64_t v = 0;

	memcpy(&v, from, bytes < 8 ? bytes : 8);
	pthread_mutex_lock(&m->lock);
	if (gpa >> 12 == IOAPIC_GPA >> 12)
		chipset_ioapic_write(&m->chipset, gpa & 0xfff, (uint32_t)v);
	else if (gpa >> 12 == m->apic.base >> 12)
		apic_write(&m->apic, (uint32_t)(gpa & 0xfff) >> 4, v, now_ns());
	arm(m);
	pthread_mutex_unlock(&m->lock);
}

/* Model-specific registers that Linux touches on either vendor and whose value may be zero. */
static bool silent_msr(uint32_t msr)
{
	switch (msr) {
	case 0x17: case 0x8b: case 0x1a0: case 0x1d9: case 0x48: case 0x49: case 0xce: case 0x140: case 0x179: case 0xc0010015: case 0xc001001f:
	case 0xc0010020: case 0xc0010055: case 0xc0010058: case 0xc0010114: case 0xc0011029: case 0xc001102c: case 0xc0011020: case 0xc0010064:
	case 0xc00110e3: case 0xc0010131: case 0xc001102d: case 0xc0011028: case 0xc0010010:
		return true;
	default: return false;
	}
}

static bool is_mtrr(uint32_t msr) { return msr == 0x2ff || (msr >= 0x200 && msr < 0x210) || (msr >= 0x250 && msr <= 0x26f); }

static int msr_read(struct machine *m, uint32_t msr, uint64_t *ret)
{
	if (msr >= 0x40000000 && msr < 0x40000200)
		return hv_msr_read(&m->hv, msr, ret);
	if (msr >= 0x800 && msr < 0x900)
		return m->apic.base & 0x400 ? apic_read(&m->apic, msr - 0x800, now_ns(), ret) : -EINVAL;
	if (is_mtrr(msr))
		return *ret = m->mtrr[msr - 0x200], 0;
	switch (msr) {
	case 0x1b: *ret = m->apic.base; return 0;
	case 0xfe: *ret = 0x508; return 0;
	case 0x6e0: *ret = m->apic.tsc_deadline; return 0;
	default: *ret = 0; return silent_msr(msr) ? 0 : -EINVAL;
	}
}

static int msr_write(struct machine *m, uint32_t msr, uint64_t v)
{
	if (msr >= 0x40000000 && msr < 0x40000200)
		return hv_msr_write(&m->hv, msr, v);
	if (msr >= 0x800 && msr < 0x900)
		return m->apic.base & 0x400 ? apic_write(&m->apic, msr - 0x800, v, now_ns()) : -EINVAL;
	if (is_mtrr(msr))
		return m->mtrr[msr - 0x200] = v, 0;
	switch (msr) {
	case 0x1b: m->apic.base = (v & ~0x100ull) | (m->apic.base & 0x100); return 0;
	case 0x6e0: m->apic.tsc_deadline = m->apic.lvt[0] & 2u << 17 ? v : 0; return 0;
	default: return silent_msr(msr) ? 0 : -EINVAL;
	}
}

static int on_msr_read(void *context, uint32_t msr, uint64_t *ret)
{
	struct machine *m = context;
	int error;

	pthread_mutex_lock(&m->lock);
	error = msr_read(m, msr, ret);
	pthread_mutex_unlock(&m->lock);
	return error;
}

static int on_msr_write(void *context, uint32_t msr, uint64_t v)
{
	struct machine *m = context;
	int error;

	pthread_mutex_lock(&m->lock);
	error = msr_write(m, msr, v);
	arm(m);
	pthread_mutex_unlock(&m->lock);
	return error;
}

static void on_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	struct machine *m = context;
	struct x86_state *s = engine_cpu_state(m->cpu);

	if (hv_cpuid(&m->hv, leaf, r))
		return;
	cpuid_policy(leaf, subleaf, m->apic.id, m->options.cpus, r);
	if (leaf == 1)
		r[2] = (r[2] & ~(1u << 27)) | (s->cr4 & CR4_OSXSAVE ? 1u << 27 : 0);
	if (leaf == 0xd && subleaf == 0)
		r[1] = s->xcr0 & 4 ? 832 : 576;
}

static int on_interrupt(void *context)
{
	struct machine *m = context;
	int vector;

	pthread_mutex_lock(&m->lock);
	m->armed_ns = 0;
	arm(m);
	m->apic.tpr = (uint32_t)engine_cpu_state(m->cpu)->cr8 << 4;
	vector = apic_take(&m->apic);
	pthread_mutex_unlock(&m->lock);
	return vector;
}

static void on_cr8(void *context, uint8_t value)
{
	struct machine *m = context;

	m->apic.tpr = (uint32_t)value << 4;
	engine_kick(m->cpu);
}

static bool on_hypercall(void *context)
{
	struct machine *m = context;
	struct x86_state *s = engine_cpu_state(m->cpu);

	if (!(m->hv.hypercall & 1))
		return false;
	s->gpr[0] = hv_hypercall(&m->hv, s->gpr[1]);
	return true;
}

static const struct engine_ops engine_ops = {
	on_port_read, on_port_write, on_mmio_read, on_mmio_write, on_msr_read, on_msr_write, on_cpuid, on_interrupt, on_cr8, on_hypercall,
};

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int make_memory(struct machine *m)
{
	uint64_t bytes = m->options.memory_bytes;

	m->memory.ram = mmap(NULL, bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->memory.ram == MAP_FAILED)
		return -ENOMEM;
	m->memory.ram = (uint8_t *)(((uintptr_t)m->memory.ram + (2 << 20) - 1) & ~((uintptr_t)(2 << 20) - 1));
	madvise(m->memory.ram, bytes, MADV_HUGEPAGE);
	m->memory.ram_bytes = bytes;
	m->memory.low_bytes = bytes < LOW_MEMORY_MAX ? bytes : LOW_MEMORY_MAX;
	return 0;
}

static void connect(struct machine *m)
{
	pthread_condattr_t attributes;

	m->hv_host = (struct hv_host){ guest_page, page_written, raise_vector, now_100ns, crashed, reset, m, measure_tsc_hz(), APIC_TIMER_HZ,
				       m->options.cpus };
	m->tsc_start = tsc();
	m->chipset_host = (struct chipset_host){ raise_at, console_byte, power_off, reset, now_100ns, m };
	hv_reset(&m->hv, &m->hv_host, 0);
	chipset_init(&m->chipset, &m->chipset_host);
	apic_reset(&m->apic, 0, true);
	m->mtrr[0xff] = 0xc06;
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &attributes);
	pthread_condattr_destroy(&attributes);
}

struct machine *machine_create(const struct machine_options *options, int *ret_error, const char **ret_reason)
{
	struct machine *m = calloc(1, sizeof(*m));

	*ret_error = -ENOMEM;
	*ret_reason = "the host has not enough memory";
	if (!m)
		return NULL;
	m->options = *options;
	if (make_memory(m)) {
		free(m);
		return NULL;
	}
	m->engine = engine_create(m->memory.ram, m->memory.ram_bytes, m->memory.low_bytes);
	m->cpu = m->engine ? engine_cpu_create(m->engine, &engine_ops, m) : NULL;
	if (!m->cpu) {
		free(m);
		return NULL;
	}
	connect(m);
	*ret_error = boot_linux(&m->memory, options->kernel, options->initrd, options->command_line, engine_cpu_state(m->cpu), ret_reason);
	if (*ret_error) {
		machine_destroy(m);
		return NULL;
	}
	acpi_write_tables(m->memory.ram + ACPI_AREA_GPA, options->cpus);
	return m;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	if (m->has_timer)
		timer_delete(m->timer);
	munmap(m->memory.ram, m->memory.ram_bytes);
	free(m); /* the engine's memory goes with the process */
}

static void wait_for_interrupt(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	flush_console(m);
	for (;;) {
		uint64_t next = run_timers(m);
		struct timespec t;

		if (apic_has_interrupt(&m->apic) || m->awake || m->end)
			break;
		if (next == UINT64_MAX || next > now_ns() + 100000000)
			next = now_ns() + 100000000; /* a stop from a signal handler is seen by then */
		t.tv_sec = (time_t)(next / 1000000000);
		t.tv_nsec = (long)(next % 1000000000);
		pthread_cond_timedwait(&m->wake, &m->lock, &t);
	}
	m->awake = false;
	m->armed_ns = 0;
	pthread_mutex_unlock(&m->lock);
	engine_kick(m->cpu);
}

enum machine_end machine_run(struct machine *m)
{
	if (make_timer(m))
		return MACHINE_STOPPED;
	while (!m->end) {
		switch (engine_run(m->cpu)) {
		case ENGINE_EXIT_HALT: wait_for_interrupt(m); break;
		case ENGINE_EXIT_SHUTDOWN: m->end = MACHINE_CRASHED + 1; break;
		default: break;
		}
	}
	flush_console(m);
	return (enum machine_end)(m->end - 1);
}

size_t machine_input(struct machine *m, const uint8_t *data, size_t bytes)
{
	size_t taken = 0;

	pthread_mutex_lock(&m->lock);
	while (taken < bytes && chipset_input(&m->chipset, data[taken]))
		taken++;
	pthread_mutex_unlock(&m->lock);
	return taken;
}

void machine_stop(struct machine *m) { finish(m, MACHINE_STOPPED); }
const char *machine_crash_text(const struct machine *m) { return m->crash_text[0] ? m->crash_text : NULL; }
void machine_print_statistics(struct machine *m) { engine_print_statistics(m->cpu); }
