/*
 * Assembly, memory and the end of a machine. One lock guards the devices, the APICs and the Hyper-V state; processor threads
 * take it in every engine_ops call, other threads in machine_input() and machine_stop().
 */
#include "machine_internal.h"
#include "saved.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "boot/multiboot.h"
#include "chipset/acpi.h"

#define LOW_MEMORY_MAX 0xc0000000ull

uint64_t machine_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t machine_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

struct moment { uint64_t ns, tsc; };

/* Both clocks at one moment: of several looks the one that was interrupted least. */
static struct moment look_at_clocks(void)
{
	uint64_t least = UINT64_MAX;
	struct moment best = { 0 };

	for (int n = 0; n < 16; n++) {
		uint64_t before = machine_tsc(), ns = machine_now_ns(), took = machine_tsc() - before;

		if (took < least) {
			least = took;
			best = (struct moment){ ns, before + took / 2 };
		}
	}
	return best;
}

static uint64_t measure_tsc_hz(void)
{
	const struct timespec pause = { 0, 20000000 };
	struct moment begin = look_at_clocks(), end;

	nanosleep(&pause, NULL);
	end = look_at_clocks();
	return (uint64_t)((unsigned __int128)(end.tsc - begin.tsc) * 1000000000 / (end.ns - begin.ns)) / 10000 * 10000;
}

uint64_t machine_now_100ns(void *context)
{
	struct machine *m = context;

	return (uint64_t)(((unsigned __int128)(machine_tsc() - m->tsc_start) * m->tsc_scale) >> 64);
}

/* Under the lock. */
void machine_finish(struct machine *m, enum machine_end end)
{
	int none = 0;

	__atomic_compare_exchange_n(&m->end, &none, (int)end + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	for (unsigned n = 0; n < m->options.cpus; n++) {
		engine_stop(m->processors[n].cpu, ENGINE_EXIT_STOP);
		pthread_cond_signal(&m->processors[n].wake);
	}
	pthread_cond_signal(&m->quiet);
}

int machine_wait_for_begin(struct machine *m)
{
	int error;

	pthread_mutex_lock(&m->lock);
	while (!m->begun && !m->end)
		pthread_cond_wait(&m->quiet, &m->lock);
	error = m->end ? -ECANCELED : 0;
	pthread_mutex_unlock(&m->lock);
	return error;
}

int machine_pause(struct machine *m)
{
	int error;

	hv_work_hold(m->hv);
	pthread_mutex_lock(&m->lock);
	m->pause = true;
	for (unsigned n = 0; n < m->options.cpus; n++) {
		engine_stop(m->processors[n].cpu, ENGINE_EXIT_KICK);
		pthread_cond_signal(&m->processors[n].wake);
	}
	while (m->standing < m->options.cpus && !m->end)
		pthread_cond_wait(&m->quiet, &m->lock);
	error = m->end ? -ECANCELED : 0;
	machine_flush_console(m);
	pthread_mutex_unlock(&m->lock);
	if (error)
		hv_work_go_on(m->hv); /* who ends the machine waits for the worker */
	return error;
}

void machine_resume(struct machine *m)
{
	hv_work_go_on(m->hv);
	pthread_mutex_lock(&m->lock);
	m->pause = false;
	for (unsigned n = 0; n < m->options.cpus; n++)
		pthread_cond_signal(&m->processors[n].wake);
	pthread_mutex_unlock(&m->lock);
}

/* ---- what devices ask of the machine --------------------------------------------------------------------------------------- */

static void raise_line(void *context, uint32_t low, uint32_t destination) { processor_send(context, NULL, low, destination); }
static void send_ipi(void *context, void *owner, uint32_t low, uint32_t destination) { processor_send(context, owner, low, destination); }

void machine_flush_console(struct machine *m)
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
		machine_flush_console(m);
}

static void power_off(void *context) { machine_finish(context, MACHINE_POWERED_OFF); }
static void reset(void *context) { machine_finish(context, MACHINE_RESET); }

void machine_crashed(struct machine *m, const char *text, size_t bytes, const uint64_t parameters[5])
{
	if (bytes)
		memcpy(m->crash_text, text, bytes);
	else
		snprintf(m->crash_text, sizeof(m->crash_text), "crash parameters %lx %lx %lx %lx %lx", parameters[0], parameters[1],
			 parameters[2], parameters[3], parameters[4]);
	machine_finish(m, MACHINE_CRASHED);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int make_memory(struct machine *m)
{
	const size_t large = 2 << 20;
	uint64_t bytes = m->options.memory_bytes, footprint = guest_memory_footprint_bytes(bytes);
	uint8_t *place;

	place = mmap(NULL, footprint + 2 * large, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (place == MAP_FAILED)
		return -ENOMEM;
	/* what remains on both sides stays inaccessible: a wrong address just outside of RAM is a fault, not somebody's memory */
	place = (uint8_t *)(((uintptr_t)place + large) & ~((uintptr_t)large - 1));
	if (mmap(place, footprint, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != place)
		return -ENOMEM;
	madvise(place, bytes, MADV_HUGEPAGE);
	guest_memory_init(&m->memory, place, bytes, bytes < LOW_MEMORY_MAX ? bytes : LOW_MEMORY_MAX);
	return 0;
}

static void connect(struct machine *m, uint64_t tsc_hz)
{
	m->hv_host.tsc_hz = tsc_hz;
	m->tsc_scale = (uint64_t)((((unsigned __int128)10000000) << 64) / m->hv_host.tsc_hz);
	m->tsc_start = machine_tsc();
	m->chipset_host = (struct chipset_host){ raise_line, console_byte, power_off, reset, machine_now_100ns, m };
	m->apic_host = (struct apic_host){ send_ipi, m };
	chipset_init(&m->chipset, &m->chipset_host);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->quiet, NULL);
	cpuid_host_model(&m->model);
	machine_connect_hv(m);
	/* the processors' threads, the worker's, and those of the devices */
	pthread_barrier_init(&m->prepared, NULL, m->options.cpus + 1 + (m->options.disks.memory ? DEVICE_THREADS : 0));
	pthread_barrier_init(&m->released, NULL, m->options.cpus);
}

static int make_processor(struct machine *m, unsigned index)
{
	struct processor *p = &m->processors[index];
	pthread_condattr_t attributes;

	p->machine = m;
	p->index = index;
	p->cpu = engine_cpu_create(m->engine, &processor_engine_ops, p);
	if (!p->cpu)
		return -ENOMEM;
	p->hv = hv_partition_cpu(m->hv, index);
	processor_reset(p);
	p->activity = index ? PROCESSOR_WAITS_FOR_SIPI : PROCESSOR_RUNNING;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	return 0;
}

static int make_parts(struct machine *m, uint64_t tsc_hz)
{
	int error = make_memory(m);

	if (error)
		return error;
	m->engine = engine_create(&m->memory);
	if (!m->engine)
		return -ENOMEM;
	engine_set_last_words(m->engine, m->options.last_words, m->options.last_words_bytes);
	connect(m, tsc_hz);
	error = machine_make_devices(m);
	if (!error)
		error = machine_make_test_device(m);
	if (error)
		return error;
	m->hv = hv_partition_create(&m->hv_host);
	if (!m->hv)
		return -ENOMEM;
	for (unsigned n = 0; n < m->options.cpus && !error; n++)
		error = make_processor(m, n);
	return error;
}

static int load_kernel(struct machine *m, const char **ret_reason)
{
	const struct machine_options *o = &m->options;
	struct x86_state *state = engine_cpu_state(m->processors[0].cpu);

	if (boot_is_multiboot(o->kernel))
		return boot_multiboot(&m->memory, o->kernel, o->initrd, o->command_line, state, ret_reason);
	return boot_linux(&m->memory, o->kernel, o->initrd, o->command_line, state, ret_reason);
}

static int make_new(struct machine *m, const char **ret_reason)
{
	int error = make_parts(m, measure_tsc_hz());

	if (!error)
		error = load_kernel(m, ret_reason);
	if (!error)
		acpi_write_tables(m->memory.ram + ACPI_AREA_GPA, m->options.cpus, machine_hv_acpi_parts(m));
	return error;
}

/* Only what the head says: the rest is read without rights (begin()). */
static int make_saved(struct machine *m, const char **ret_reason)
{
	const char *no_memory = *ret_reason;
	struct saved_head head = { 0 };
	int error = saved_read_head(&m->options.saved, &head, ret_reason);

	if (!error)
		error = saved_check_rate(head.tsc_hz, measure_tsc_hz(), ret_reason);
	if (error)
		return error;
	m->options.memory_bytes = head.memory_bytes;
	m->options.cpus = head.cpus;
	m->options.hv_features = head.features;
	m->options.debug_exit = head.debug_exit;
	*ret_reason = no_memory;
	return make_parts(m, head.tsc_hz);
}

int machine_read_saved(const struct boot_file *saved, uint64_t *ret_memory_bytes, unsigned *ret_cpus)
{
	struct saved_head head = { 0 };
	const char *reason;
	int error = saved_read_head(saved, &head, &reason);

	*ret_memory_bytes = head.memory_bytes;
	*ret_cpus = head.cpus;
	return error;
}

struct machine *machine_create(const struct machine_options *options, int *ret_error, const char **ret_reason)
{
	struct machine *m = calloc(1, sizeof(*m));

	*ret_error = -ENOMEM;
	*ret_reason = "the host has not enough memory";
	if (!m)
		return NULL;
	m->options = *options;
	*ret_error = options->saved.bytes ? make_saved(m, ret_reason) : make_new(m, ret_reason);
	if (!*ret_error)
		return m;
	machine_destroy(m);
	return NULL;
}

void machine_destroy(struct machine *m)
{
	if (m && m->memory.ram)
		munmap(m->memory.ram, guest_memory_footprint_bytes(m->memory.ram_bytes));
	if (m && m->hv)
		hv_partition_destroy(m->hv);
	if (m) {
		machine_destroy_devices(m);
		test_device_destroy(m->test_device);
	}
	free(m); /* the engine's memory goes with the process */
}

/* On one thread: rights are taken away from all of them, then what is saved is read. */
static int begin(struct machine *m)
{
	int error = m->options.lock_down ? m->options.lock_down(m->options.context) : 0;

	if (!error && m->options.saved.bytes && (m->refusal = saved_load(m, &m->refusal_text)))
		machine_finish(m, MACHINE_REFUSED);
	pthread_mutex_lock(&m->lock);
	m->begun = true;
	pthread_cond_signal(&m->quiet);
	pthread_mutex_unlock(&m->lock);
	return error;
}

/* Every thread is ready before one may run. */
static int start(struct processor *p)
{
	struct machine *m = p->machine;
	int error = processor_prepare_thread(p);

	pthread_barrier_wait(&m->prepared);
	if (!error && !p->index)
		error = begin(m);
	if (error)
		machine_finish(m, MACHINE_FAILED);
	pthread_barrier_wait(&m->released);
	return error;
}

static void *processor_thread(void *context)
{
	if (!start(context))
		processor_run(context);
	return NULL;
}

static void *worker_thread(void *context)
{
	struct machine *m = context;

	pthread_barrier_wait(&m->prepared); /* a thread's first steps are system calls that are taken away then */
	hv_work_run(m->hv);
	return NULL;
}

enum machine_end machine_run(struct machine *m)
{
	if (pthread_create(&m->worker, NULL, worker_thread, m) || machine_start_devices(m))
		return MACHINE_FAILED;
	for (unsigned n = 1; n < m->options.cpus; n++)
		if (pthread_create(&m->processors[n].thread, NULL, processor_thread, &m->processors[n]))
			return MACHINE_FAILED; /* the process ends now, and the others with it */
	processor_thread(&m->processors[0]);
	for (unsigned n = 1; n < m->options.cpus; n++)
		pthread_join(m->processors[n].thread, NULL);
	hv_work_stop(m->hv);
	pthread_join(m->worker, NULL);
	machine_stop_devices(m);
	machine_flush_console(m);
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

void machine_stop(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	machine_finish(m, MACHINE_STOPPED);
	pthread_mutex_unlock(&m->lock);
}

const char *machine_refusal(const struct machine *m, int *ret_error) { return *ret_error = m->refusal, m->refusal_text; }
int machine_debug_exit_code(const struct machine *m) { return m->debug_exit_code; }
const char *machine_crash_text(const struct machine *m) { return m->crash_text[0] ? m->crash_text : NULL; }
void machine_statistics(struct machine *m, char *text, size_t bytes)
{
	size_t used = 0;

	for (unsigned n = 0; n < m->options.cpus && used < bytes; n++)
		used += engine_statistics(m->processors[n].cpu, text + used, bytes - used);
	if (used < bytes)
		used += hv_statistics(m->hv, text + used, bytes - used);
	if (used < bytes && m->bus)
		machine_device_statistics(m, text + used, bytes - used);
}
