/* A machine is made, new or as a saved one says, and unmade. lifecycle.c has what is in between. */
#include "machine_internal.h"
#include "saved.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "boot/multiboot.h"
#include "chipset/acpi.h"

enum { LARGE_PAGE_BYTES = 2 << 20, BELOW_IMAGES_BYTES = 1 << 20 };
#define LOW_MEMORY_MAX 0xc0000000ull

uint64_t machine_start_bytes(const struct machine_options *options)
{
	return options->start_bytes ? options->start_bytes : options->memory_bytes;
}

uint64_t machine_ceiling_bytes(const struct machine_options *options)
{
	enum { PROGRAM_BYTES = 24 << 20, BYTES_PER_VCPU = 12 << 20, BYTES_PER_PAGE = 12 };
	/* mmu/writers.h */
	enum { BYTES_PER_PAGE_AND_VCPU = 16 };
	enum { CODE_NAMES_BYTES = 8 << 20 }; /* notes, what waits for its name, a thread */

	uint64_t memory_bytes = guest_memory_footprint_bytes(options->memory_bytes);
	/* what they share (mmu/common.h) is as much as one has */
	uint64_t sets = options->cpus + (options->cpus > 1);

	return memory_bytes +
	       memory_bytes / GUEST_PAGE_BYTES *
		       (BYTES_PER_PAGE + sets * BYTES_PER_PAGE_AND_VCPU) +
	       options->overhead_bytes + PROGRAM_BYTES + sets * BYTES_PER_VCPU +
	       (options->code ? CODE_NAMES_BYTES : 0);
}

uint8_t *machine_ram(const struct machine *machine, size_t *ret_bytes)
{
	*ret_bytes = machine->memory.ram_bytes;
	return machine->memory.ram;
}

/*
 * What the other side of each port lends appears where its guest is told: of all ports what can be
 * written, then what cannot. 0 or -errno.
 */
static int show_windows(struct machine *machine)
{
	const struct machine_options *options = &machine->options;
	const unsigned ports = options->ports;
	const size_t bytes = SHARE_WINDOW_PAGES * (size_t)GUEST_PAGE_BYTES;

	_Static_assert(SHARE_PORTS * (SHARE_SHOWN_PAGES + SHARE_WINDOW_PAGES) <=
			       (int)GUEST_WINDOW_PAGES,
		       "windows");
	assert(ports <= SHARE_PORTS);
	for (unsigned n = 0; n < ports; n++) {
		const unsigned read_only = ports * SHARE_SHOWN_PAGES + n * SHARE_WINDOW_PAGES;
		uint8_t *place = guest_window_page(&machine->memory, n * SHARE_SHOWN_PAGES);
		const struct machine_port *port = &options->port[n];
		const unsigned others = share_port_side(port->kind) == SHARE_SIDE_SERVES;

		if (!port_window_show(port->window, WINDOW_BOTH, others, place, bytes, false) ||
		    !port_window_show(port->window, WINDOW_OTHERS, 0,
				      guest_window_page(&machine->memory, read_only), bytes, false))
			return -ENOMEM;
		port->window->word = (uint64_t *)(void *)(place + bytes);
	}
	machine->memory.window_read_only = ports * SHARE_SHOWN_PAGES * (uint64_t)GUEST_PAGE_BYTES;
	machine->memory.window_bytes = machine->memory.window_read_only + ports * bytes;
	return 0;
}

/* What is added later lies above 4 GiB, also where the start leaves room below the devices. */
static int make_memory(struct machine *machine)
{
	uint64_t bytes = machine->options.memory_bytes;
	uint64_t start = machine_start_bytes(&machine->options);
	uint64_t footprint = guest_memory_footprint_bytes(bytes);
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *place = mmap(NULL, footprint + 3 * LARGE_PAGE_BYTES, PROT_NONE, flags, -1, 0);

	assert(bytes && start <= bytes);
	if (place == MAP_FAILED)
		return -ENOMEM;
	/*
	 * what remains on both sides, at least a large page, stays inaccessible: a wrong address
	 * just outside of RAM is a fault, not somebody's memory; so is what a loop reaches that is
	 * only predicted to go on (docs/speculation.md)
	 */
	place = (uint8_t *)(((uintptr_t)place + 2 * LARGE_PAGE_BYTES - 1) &
			    ~((uintptr_t)LARGE_PAGE_BYTES - 1));
	if (mmap(place, footprint, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0) != place)
		return -ENOMEM;
	madvise(place, bytes, MADV_HUGEPAGE);
	guest_memory_init(&machine->memory, place, bytes,
			  start < LOW_MEMORY_MAX ? start : LOW_MEMORY_MAX);
	guest_memory_populate(&machine->memory, start);
	return show_windows(machine);
}

static void send_ipi(void *context, void *owner, uint32_t low, uint32_t destination)
{
	interrupt_send(context, owner, low, destination);
}

static void end_of_level(void *context, uint8_t vector)
{
	chipset_end_of_interrupt(&((struct machine *)context)->chipset, vector);
}

_Static_assert((int)MACHINE_WITHOUT_SPACES == (int)ENGINE_WITHOUT_SPACES &&
		       (int)MACHINE_WITHOUT_TABLES == (int)ENGINE_WITHOUT_TABLES &&
		       (int)MACHINE_WITHOUT_BATCHES == (int)ENGINE_WITHOUT_BATCHES &&
		       (int)MACHINE_WITHOUT_WORDS == (int)ENGINE_WITHOUT_WORDS &&
		       (int)MACHINE_WITHOUT_SHORTCUTS == (int)ENGINE_WITHOUT_SHORTCUTS &&
		       (int)MACHINE_WITHOUT_PAGES == (int)ENGINE_WITHOUT_PAGES &&
		       (int)MACHINE_WITHOUT_VICTIMS == (int)ENGINE_WITHOUT_VICTIMS &&
		       (int)MACHINE_WITHOUT_TRUST == (int)ENGINE_WITHOUT_TRUST &&
		       (int)MACHINE_WITHOUT_DEAD_FLAGS == (int)ENGINE_WITHOUT_DEAD_FLAGS &&
		       (int)MACHINE_WITHOUT_SHARING == (int)ENGINE_WITHOUT_SHARING &&
		       (int)MACHINE_WITHOUT_TRIMS == (int)ENGINE_WITHOUT_TRIMS &&
		       (int)MACHINE_WITHOUT_USES == (int)ENGINE_WITHOUT_USES &&
		       (int)MACHINE_WITHOUT_SLOTS == (int)ENGINE_WITHOUT_SLOTS &&
		       (int)MACHINE_WITHOUT_STRIPS == (int)ENGINE_WITHOUT_STRIPS &&
		       (int)MACHINE_WITHOUT_INDEXES == (int)ENGINE_WITHOUT_INDEXES &&
		       (int)MACHINE_WITHOUT_TRACES == (int)ENGINE_WITHOUT_TRACES &&
		       (int)MACHINE_WITHOUT_WAITING == (int)ENGINE_WITHOUT_WAITING,
	       "the same bits");

static int make_engine(struct machine *machine)
{
	const struct engine_options options = {
		.overhead_bytes = machine->options.overhead_bytes,
		.cpus = machine->options.cpus,
		.without = machine->options.without,
		.mmu_tables_left_open = machine->options.mmu_tables_left_open,
		.notes_code = machine->options.code,
		.goes_on = machine->options.saved.bytes,
	};

	assert(!machine->engine && machine->options.cpus <= MACHINE_MAX_CPUS);
	machine->engine = engine_create(&machine->memory, &options);
	if (!machine->engine)
		return -ENOMEM;
	machine->model = machine->options.model;
	engine_set_model(machine->engine, &machine->model, &machine->options.host);
	engine_set_last_words(machine->engine, machine->options.last_words,
			      machine->options.last_words_bytes);
	return 0;
}

static int make_partition(struct machine *machine)
{
	machine->hv = hv_partition_create(&machine->hv_host);
	if (!machine->hv)
		return -ENOMEM;
	unit_add(&machine->units, &hv_unit, machine->hv, 0);
	return 0;
}

/* In the order that unit_list.h wants. */
static int make_units(struct machine *machine)
{
	int error;

	machine_connect_chipset(machine);
	error = machine_make_devices(machine);
	if (!error)
		error = machine_make_test_device(machine);
	if (!error)
		error = machine_make_ticker(machine);
	if (!error && machine->options.code)
		error = machine_make_code_names(machine);
	if (!error)
		error = make_partition(machine);
	for (unsigned n = 0; n < machine->options.cpus && !error; n++)
		error = vcpu_make(machine, n);
	return error;
}

static void make_looked(struct machine *machine)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&machine->looked, &attributes);
	pthread_condattr_destroy(&attributes);
}

static int make_parts(struct machine *machine, uint64_t tsc_hz)
{
	int error = make_memory(machine);

	if (!error)
		error = make_engine(machine);
	if (error)
		return error;
	pthread_mutex_init(&machine->lock, NULL);
	pthread_cond_init(&machine->changed, NULL);
	make_looked(machine);
	code_ahead_init(&machine->code_ahead);
	machine_connect_hv(machine, tsc_hz);
	clock_set(machine, tsc_hz, clock_tsc(), 0);
	machine->apic_host = (struct apic_host){ .send = send_ipi,
						 .end_of_level = end_of_level,
						 .context = machine };
	error = make_units(machine);
	if (!error)
		units_reset(&machine->units);
	return error;
}

/*
 * What was written without the engine's knowing it, so that from here on it knows of all that was
 * (engine_find_written()).
 */
static void tell_engine(struct machine *machine, const struct boot_extent *image)
{
	const uint64_t module_bytes = machine->options.initrd.bytes;

	engine_memory_written(machine->engine, 0, BELOW_IMAGES_BYTES);
	if (image->end_gpa > image->gpa)
		engine_memory_written(machine->engine, image->gpa, image->end_gpa - image->gpa);
	if (module_bytes)
		engine_memory_written(machine->engine,
				      boot_module_gpa(&machine->memory, module_bytes),
				      module_bytes);
	machine->knows_written = true;
}

static int load_kernel(struct machine *machine, const char **ret_reason)
{
	const struct machine_options *options = &machine->options;
	struct guest_memory *memory = &machine->memory;
	struct engine_state state = { .nmi_pending = false };
	struct boot_extent image = { 0 };
	int error;

	if (boot_is_multiboot(options->kernel))
		error = boot_multiboot(memory, options->kernel, options->initrd,
				       options->command_line, &image, &state.x86, ret_reason);
	else
		error = boot_linux(memory, options->kernel, options->initrd, options->command_line,
				   &image, &state.x86, ret_reason);
	if (!error)
		tell_engine(machine, &image);
	if (!error)
		engine_set(machine->vcpus[0].cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	return error;
}

static void unmap_file(const struct boot_file *file)
{
	if (file->bytes)
		munmap((void *)(uintptr_t)file->data, file->bytes);
}

void machine_leave_saved(struct machine *machine)
{
	unmap_file(&machine->options.saved);
}

int machine_load(struct machine *machine, const char **ret_reason)
{
	int error;

	if (machine->options.saved.bytes)
		return restore_machine(machine, ret_reason);
	error = load_kernel(machine, ret_reason);
	if (!error)
		acpi_write_tables(machine->memory.ram + ACPI_AREA_GPA, machine->options.cpus,
				  machine_hv_acpi_parts(machine));
	if (!error)
		generation_begin(machine);
	unmap_file(&machine->options.kernel);
	unmap_file(&machine->options.initrd);
	return error;
}

static bool has_ports(const struct machine_options *options, const uint8_t kind[SHARE_PORTS])
{
	for (unsigned n = 0; n < SHARE_PORTS; n++) {
		const uint8_t own =
			n < options->ports ? options->port[n].kind : SHARE_PORT_NONE;

		if (own != kind[n])
			return false;
	}
	return true;
}

/* Only what the head says: the rest is read without rights (machine_load()). */
static int make_saved(struct machine *machine, const char **ret_reason)
{
	const char *no_memory = *ret_reason;
	struct saved_head head = { 0 };
	int error = saved_read_head(&machine->options.saved, &head, ret_reason);

	if (!error)
		error = saved_check_rate(head.tsc_hz,
					 clock_measure_tsc_hz(&machine->options.begun,
							      CLOCK_COMPARE_NS),
					 ret_reason);
	if (error)
		return error;
	machine->options.memory_bytes = head.memory_bytes;
	machine->options.cpus = head.cpus;
	machine->options.hv_features = head.features;
	machine->options.debug_exit = head.debug_exit;
	if (head.has_bus != !!machine->options.disks.memory ||
	    head.cards != machine->options.cards || !has_ports(&machine->options, head.port)) {
		*ret_reason = "it has other devices than this machine was given";
		return -ENOTSUP;
	}
	machine->options.start_bytes = head.start_bytes;
	machine->options.display = head.display;
	*ret_reason = no_memory;
	error = make_parts(machine, head.tsc_hz);
	if (!error)
		demand_begin(machine);
	return error;
}

int machine_read_saved(const struct boot_file *saved, struct machine_saved *ret)
{
	struct saved_head head = { 0 };
	const char *reason;
	int error = saved_read_head(saved, &head, &reason);

	*ret = (struct machine_saved){ .memory_bytes = head.memory_bytes,
				       .start_bytes = head.start_bytes,
				       .cpus = head.cpus,
				       .cards = head.cards,
				       .has_bus = head.has_bus };
	memcpy(ret->port, head.port, sizeof(ret->port));
	return error;
}

struct machine *machine_create(const struct machine_options *options, int *ret_error,
			       const char **ret_reason)
{
	struct machine *machine;

	assert(options->console &&
	       (options->saved.bytes || (options->cpus && options->cpus <= MACHINE_MAX_CPUS)));
	*ret_error = -ENOMEM;
	*ret_reason = "the host has not enough memory";
	/* not calloc(), which has all of a small heap made */
	machine = mmap(NULL, sizeof(*machine), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (machine == MAP_FAILED)
		return NULL;
	machine->options = *options;
	trace_init(&machine->trace, options->trace);
	*ret_error = options->saved.bytes ? make_saved(machine, ret_reason)
					  : make_parts(machine,
						       clock_measure_tsc_hz(&options->begun,
									    CLOCK_MEASURE_NS));
	if (!*ret_error)
		return machine;
	machine_destroy(machine);
	return NULL;
}

void machine_destroy(struct machine *machine)
{
	if (!machine)
		return;
	units_destroy(&machine->units);
	machine_destroy_devices(machine);
	for (unsigned n = 0; n < MACHINE_MAX_CPUS; n++)
		engine_cpu_destroy(machine->vcpus[n].cpu);
	engine_destroy(machine->engine);
	if (machine->memory.ram)
		munmap(machine->memory.ram,
		       guest_memory_footprint_bytes(machine->memory.ram_bytes));
	munmap(machine, sizeof(*machine));
}

const char *machine_refusal(const struct machine *machine, int *ret_error)
{
	*ret_error = machine->refusal;
	return machine->refusal_text;
}

int machine_debug_exit_code(const struct machine *machine) { return machine->debug_exit_code; }
const char *machine_crash_text(const struct machine *machine)
{
	return machine->crash_text[0] ? machine->crash_text : NULL;
}

void machine_statistics(struct machine *machine, char *text, size_t bytes)
{
	if (bytes)
		text[0] = 0;
	units_statistics(&machine->units, text, bytes);
}
