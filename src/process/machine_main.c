/*
 * The machine process's main: makes the machine, gives up its rights, runs the guest, and tells the
 * broker how it ended.
 *
 * Threads: the processors' (vm/lifecycle.c), one that listens to the broker, and one that saves the
 * machine, or has it stand still to be forked, when asked to. After lockdown() the process holds
 * two event descriptors, with a bus two more, an end of two pipes for each network card, and
 * memory, nothing else.
 *
 * In what is forked (ipc/forker.h) it is the saver that goes on, in go_on_forked(): it takes what
 * the new broker has given, brings the other threads back to where they began, gives up what it
 * needed for that, and is the saver again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "assertion.h"
#include "ipc/forker.h"
#include "ipc/lockdown.h"
#include "ipc/record_ring.h"
#include "mains.h"
#include "plan.h"
#include "sanitized.h"
#include "vm/machine.h"

enum { EXIT_FAULT = 70, WORDS_BYTES = 4096, LISTENERS = 2, FORKED_TIMER_SLACK_NS = 1 };

struct process {
	const struct plan *plan;
	struct broker_memory *rings;
	struct block_memory *slots; /* NULL: the machine has no bus */
	struct machine_connections connections;
	struct machine_card card[NET_CARDS];
	unsigned cards;
	struct ring_end to_broker, from_broker;
	struct machine *machine;
	pthread_t listener, saver;
	/* where threads go on in what is forked */
	struct fork_place main_place, listener_place, saver_place;
	struct sock_fprog calls; /* the list of a machine process, for what is forked */
	/* A thread's first system calls are not in the list: it must be through them before
	 * lock-down. */
	pthread_barrier_t listening;
	pthread_mutex_t saving; /* of the next two */
	pthread_cond_t save_ready;
	bool save_wanted, fork_wanted;
	pthread_mutex_t ring; /* the ring to the broker: processors and listener */
};

static void tell(struct process *p, uint32_t kind, const void *data, size_t bytes)
{
	pthread_mutex_lock(&p->ring);
	while (ring_put(&p->to_broker, kind, data, (uint32_t)bytes) == -EAGAIN)
		ring_wait(&p->to_broker);
	pthread_mutex_unlock(&p->ring);
}

static void console(void *context, const uint8_t *data, size_t bytes)
{
	tell(context, RECORD_CONSOLE, data, bytes);
}

static void stuck(void *context, const char *text)
{
	tell(context, RECORD_STUCK, text, strlen(text));
}

static int put_saved(void *context, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	for (size_t n; bytes; from += n, bytes -= n) {
		n = bytes < RING_RECORD_MAX_BYTES ? bytes : RING_RECORD_MAX_BYTES;
		tell(context, RECORD_SAVED, from, n);
	}
	return 0;
}

/* Of the broker's wishes what takes its time, for the saver: one at a time. */
static void want(struct process *p, bool *which)
{
	pthread_mutex_lock(&p->saving);
	*which = true;
	pthread_cond_signal(&p->save_ready);
	pthread_mutex_unlock(&p->saving);
}

static bool take_wish(bool *which)
{
	bool wanted = *which;

	*which = false;
	return wanted;
}

/* False: a save is wanted; true: a fork. */
static bool wait_for_wish(struct process *p)
{
	bool fork;

	pthread_mutex_lock(&p->saving);
	while (!p->save_wanted && !p->fork_wanted)
		pthread_cond_wait(&p->save_ready, &p->saving);
	fork = take_wish(&p->fork_wanted);
	if (!fork)
		take_wish(&p->save_wanted);
	pthread_mutex_unlock(&p->saving);
	return fork;
}

static void save(struct process *p)
{
	int32_t error = machine_save(p->machine, put_saved, p);

	tell(p, RECORD_SAVE_ENDED, &error, sizeof(error));
}

static void process_go_on_forked(struct process *p);

/*
 * The broker lets the machine go on with RECORD_RESUME, also when nothing came of it. Here nothing
 * is done any more when the process is forked.
 */
static void stand_still_for_fork(struct process *p)
{
	int32_t error = machine_fork_begin(p->machine);

	tell(p, RECORD_FORK_READY, &error, sizeof(error));
}

static void *save_when_wanted(void *context)
{
	struct process *p = context;

	pthread_barrier_wait(&p->listening);
	if (fork_place_take(&p->saver_place))
		process_go_on_forked(p);
	for (;;) {
		if (wait_for_wish(p))
			stand_still_for_fork(p);
		else
			save(p);
	}
	return NULL;
}

static void set_memory(struct process *p, const uint8_t *data, uint32_t bytes)
{
	uint64_t wanted;

	if (bytes != sizeof(wanted))
		return;
	memcpy(&wanted, data, sizeof(wanted));
	machine_set_memory(p->machine, wanted);
}

static void advise_memory(struct process *p, const uint8_t *data, uint32_t bytes)
{
	uint64_t advised;

	if (bytes != sizeof(advised))
		return;
	memcpy(&advised, data, sizeof(advised));
	machine_advise_memory(p->machine, advised);
}

static uint64_t state_flags(const struct machine_state *s)
{
	uint64_t flags = 0;

	if (s->health == MACHINE_HEALTH_GOOD)
		flags |= STATE_ANSWERS;
	if (s->health == MACHINE_HEALTH_LOST)
		flags |= STATE_SILENT;
	if (s->has_memory_driver)
		flags |= STATE_MEMORY_DRIVER;
	if (s->has_memory_status)
		flags |= STATE_MEMORY_STATUS;
	if (s->automatic)
		flags |= STATE_AUTOMATIC;
	if (s->is_advised)
		flags |= STATE_ADVISED;
	if (s->can_grow)
		flags |= STATE_GROWS;
	if (s->is_silent)
		flags |= STATE_MEMORY_SILENT;
	return flags;
}

static void state(void *context, const struct machine_state *s)
{
	const struct record_state r = {
		.flags = state_flags(s),
		.held_bytes = s->held_bytes, .assigned_bytes = s->assigned_bytes,
		.target_bytes = s->target_bytes,
		.available_bytes = s->available_bytes,
		.committed_bytes = s->committed_bytes,
		.reports = s->reports,
		.given_back_bytes = s->given_back_bytes,
		.refused_regions = s->refused_regions,
		.unused_regions = s->unused_regions,
	};

	tell(context, RECORD_STATE, &r, sizeof(r));
}

static void shut_down(struct process *p)
{
	int32_t asked = machine_shut_down(p->machine);

	tell(p, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
}

_Static_assert((int)MACHINE_MAX_CPUS <= REGISTERS_MOST, "all in one record");
_Static_assert((int)MACHINE_CPU_HALTED == REGISTERS_HALTED &&
		       (int)MACHINE_CPU_WAITS == REGISTERS_WAITS,
	       "as it is told");
_Static_assert((int)MACHINE_SYMBOL_BYTES == REGISTERS_SYMBOL_BYTES, "as it is told");

static void look(struct process *p)
{
	struct machine_registers registers[MACHINE_MAX_CPUS];
	struct record_registers records[MACHINE_MAX_CPUS];
	char counters[RING_RECORD_MAX_BYTES];
	unsigned cpus;

	machine_statistics(p->machine, counters, sizeof(counters));
	tell(p, RECORD_COUNTERS, counters, strlen(counters));
	/* of who does not answer: what it said before */
	machine_look(p->machine, registers, &cpus);
	for (unsigned n = 0; n < cpus; n++) {
		const struct machine_registers *from = &registers[n];

		records[n] = (struct record_registers){
			.rip = from->rip, .rflags = from->rflags, .cr0 = from->cr0,
			.cr2 = from->cr2, .cr3 = from->cr3, .cr4 = from->cr4, .efer = from->efer,
			.lstar = from->lstar, .cs = from->cs, .ss = from->ss,
			.state = from->state, .fault_vector = from->fault_vector,
		};
		memcpy(records[n].gpr, from->gpr, sizeof(records[n].gpr));
		memcpy(records[n].symbol, from->symbol, sizeof(records[n].symbol));
	}
	tell(p, RECORD_REGISTERS, records, cpus * sizeof(records[0]));
}

static void *listen_to_broker(void *context)
{
	struct process *p = context;
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind, bytes;
	uint64_t count;

	pthread_barrier_wait(&p->listening);
	fork_place_take(&p->listener_place);
	while (read(grant_fd(GRANT_TO_MACHINE), &count, 8) == 8)
		while (ring_get(&p->from_broker, &kind, data, &bytes) > 0)
			if (kind == RECORD_INPUT)
				machine_input(p->machine, data, bytes);
			else if (kind == RECORD_STOP)
				machine_stop(p->machine);
			else if (kind == RECORD_SAVE)
				want(p, &p->save_wanted);
			else if (kind == RECORD_FORK)
				want(p, &p->fork_wanted);
			else if (kind == RECORD_RESUME)
				machine_resume(p->machine);
			else if (kind == RECORD_ADVICE)
				advise_memory(p, data, bytes);
			else if (kind == RECORD_MEMORY)
				set_memory(p, data, bytes);
			else if (kind == RECORD_SHUT_DOWN)
				shut_down(p);
			else if (kind == RECORD_LOOK)
				look(p);
	return NULL;
}

static void tell_end(struct process *p, enum machine_end end)
{
	const char *text = machine_crash_text(p->machine);
	uint8_t data[8 + WORDS_BYTES];
	int32_t codes[2] = { end, machine_debug_exit_code(p->machine) };
	size_t bytes = text ? strnlen(text, WORDS_BYTES) : 0;

	memcpy(data, codes, 8);
	memcpy(data + 8, text ? text : "", bytes);
	tell(p, RECORD_ENDED, data, 8 + bytes);
}

static void tell_refusal(struct process *p, int error, const char *reason)
{
	uint8_t data[4 + WORDS_BYTES];
	int32_t code = error;
	size_t bytes = strnlen(reason, WORDS_BYTES);

	memcpy(data, &code, 4);
	memcpy(data + 4, reason, bytes);
	tell(p, RECORD_REFUSED, data, 4 + bytes);
}

/* ---- what it was given ---- */

/*
 * What is shared with other processes: place: NULL, or where it was. What is forked does not get it
 * with the memory.
 */
static void *grant_map(enum grant grant, void *place, size_t bytes)
{
	int flags = MAP_SHARED | (place ? MAP_FIXED : 0);
	void *at = mmap(place, bytes, PROT_READ | PROT_WRITE, flags, grant_fd(grant), 0);

	close(grant_fd(grant));
	if (at == MAP_FAILED || madvise(at, bytes, MADV_DONTFORK))
		return NULL;
	return at;
}

static bool take_rings(struct process *p)
{
	p->rings = grant_map(GRANT_RINGS, p->rings, sizeof(*p->rings));
	if (!p->rings)
		return false;
	p->to_broker = (struct ring_end){ .memory = &p->rings->to_broker,
					  .wake_fd = grant_fd(GRANT_TO_BROKER) };
	p->from_broker = (struct ring_end){ .memory = &p->rings->to_machine };
	return true;
}

static bool take_slots(struct process *p)
{
	p->slots = grant_map(GRANT_SLOTS, p->slots, sizeof(*p->slots));
	return p->slots;
}

/*
 * A file that the machine begins with. The user's own: one that is made shorter meanwhile ends the
 * process.
 */
static bool grant_map_file(uint64_t here, enum grant grant, struct boot_file *ret)
{
	struct stat st;

	if (!(here & GRANT(grant)))
		return true;
	if (fstat(grant_fd(grant), &st))
		return false;
	ret->bytes = (size_t)st.st_size;
	ret->data = mmap(NULL, ret->bytes, PROT_READ, MAP_PRIVATE, grant_fd(grant), 0);
	close(grant_fd(grant));
	return ret->data != MAP_FAILED;
}

static bool take_card(struct process *p, unsigned n)
{
	struct machine_card *card = &p->card[n];

	card->memory = grant_map((enum grant)(GRANT_CARDS + n), card->memory,
				 sizeof(*card->memory));
	card->doorbell_fd = grant_fd((enum grant)(GRANT_CARD_BELLS + n));
	card->answer_fd = grant_fd((enum grant)(GRANT_CARD_ANSWERS + n));
	return card->memory;
}

static bool take_connections(struct process *p)
{
	struct machine_connections *connections = &p->connections;

	connections->memory =
		grant_map(GRANT_CONNECTIONS, connections->memory, sizeof(*connections->memory));
	connections->doorbell_fd = grant_fd(GRANT_CONNECTION_BELL);
	return connections->memory;
}

/* What its devices share with those who serve them: the network cards from the first on. */
static bool take_devices(struct process *p, uint64_t here)
{
	if (here & GRANT(GRANT_SLOTS) && !take_slots(p))
		return false;
	if (here & GRANT(GRANT_CONNECTIONS) && !take_connections(p))
		return false;
	for (p->cards = 0; p->cards < NET_CARDS && here & GRANT(GRANT_CARDS + p->cards); p->cards++)
		if (!take_card(p, p->cards))
			return false;
	return true;
}

/* The ports that there are, from the first on. */
static bool take_ports(uint64_t here, struct machine_options *o)
{
	for (unsigned n = 0; n < SHARE_PORTS && here & GRANT(GRANT_PORTS + n); n++) {
		struct machine_port *port = &o->port[o->ports++];

		port->memory = grant_map((enum grant)(GRANT_PORTS + n), NULL,
					 sizeof(*port->memory));
		port->window = grant_map((enum grant)(GRANT_WINDOWS + n), NULL,
					 sizeof(*port->window));
		port->doorbell_fd = grant_fd((enum grant)(GRANT_PORT_BELLS + n));
		port->answer_fd = grant_fd((enum grant)(GRANT_PORT_ANSWERS + n));
		if (!port->memory || !port->window)
			return false;
	}
	return true;
}

static bool take_grants(struct process *p, uint64_t here, struct machine_options *o)
{
	if (!take_rings(p) || !take_devices(p, here))
		return false;
	if (p->slots)
		o->disks = (struct machine_disks){ .memory = p->slots,
						   .doorbell_fd = grant_fd(GRANT_DOORBELL),
						   .answer_fd = grant_fd(GRANT_ANSWER) };
	o->connections = p->connections;
	o->cards = p->cards;
	memcpy(o->card, p->card, sizeof(o->card));
	return take_ports(here, o) &&
	       grant_map_file(here, GRANT_KERNEL, &o->kernel) &&
	       grant_map_file(here, GRANT_INITRD, &o->initrd) &&
	       grant_map_file(here, GRANT_SAVED, &o->saved);
}

static void take_plan(struct process *p, struct machine_options *o)
{
	const struct machine_plan *plan = &p->plan->machine;

	o->memory_bytes = plan->memory_bytes;
	o->start_bytes = plan->start_memory_bytes;
	o->least_memory_bytes = plan->least_memory_bytes;
	o->memory_buffer_percent = plan->memory_buffer_percent;
	o->overhead_bytes = plan->overhead_bytes;
	o->hv_features = plan->hv_features;
	o->cpus = plan->cpus;
	o->debug_exit = plan->debug_exit;
	o->time_limit_s = plan->time_limit_s;
	o->without = plan->without;
	o->mmu_tables_left_open = plan->mmu_tables_left_open;
	o->test_device = plan->test_device;
	o->model = plan->model;
	o->host = plan->host;
	o->command_line = plan->command_line;
	o->console = console;
	o->state = state;
	o->stuck = stuck;
	o->context = p;
	assertion_describe_in(p->rings->last_words, sizeof(p->rings->last_words));
	o->last_words = p->rings->last_words;
	o->last_words_bytes = sizeof(p->rings->last_words);
}

/* ---- its limits ---- */

/*
 * The engine keeps its budget itself (engine.h); this is the kernel's word, for what it might have
 * forgotten. Memory that is shared with other processes and the code cache are not in it: their
 * sizes are fixed. 0 or -errno.
 */
static int limit_memory(const struct machine_options *options)
{
	enum { THREAD_STACK_BYTES = 1 << 20, THREADS_BESIDE_PROCESSORS = 8 };
	uint64_t stacks =
		(options->cpus + (uint64_t)THREADS_BESIDE_PROCESSORS) * THREAD_STACK_BYTES;
	uint64_t most = machine_ceiling_bytes(options) + stacks;
	const struct rlimit limit = { .rlim_cur = most, .rlim_max = most };
	pthread_attr_t attributes;
	int error = -pthread_attr_init(&attributes);

	if (SANITIZED) /* its shadow memory is far beyond any limit */
		return 0;
	if (!error)
		error = -pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
	if (!error)
		error = -pthread_setattr_default_np(&attributes);
	if (!error && setrlimit(RLIMIT_DATA, &limit))
		error = -errno;
	return error;
}

/* ---- forks ---- */

/* Of a machine that its broker may have forked, while there is one thread. 0 or -errno. */
static int prepare_forks(struct process *p)
{
	struct sock_fprog forkers_calls;
	int error;

	if (SANITIZED || !p->plan->machine.forks)
		return 0;
	error = lockdown_compile(ROLE_MACHINE, &p->calls);
	if (!error)
		error = lockdown_compile(ROLE_FORKER, &forkers_calls);
	if (error)
		return error;
	prctl(PR_SET_TIMERSLACK, FORKED_TIMER_SLACK_NS); /* for who cannot say so later */
	forker_set_place(&p->saver_place);
	return forker_start(&forkers_calls);
}

static void locks_make(struct process *p)
{
	pthread_mutex_init(&p->ring, NULL);
	pthread_mutex_init(&p->saving, NULL);
	pthread_cond_init(&p->save_ready, NULL);
	p->save_wanted = p->fork_wanted = false;
}

/* What a forked machine is given for its devices, of all that a kit has. */
static uint64_t grants_of_devices(const struct process *p)
{
	uint64_t grants = 0;

	if (p->slots)
		grants |= GRANT(GRANT_SLOTS) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER);
	if (p->connections.memory)
		grants |= GRANT(GRANT_CONNECTIONS) | GRANT(GRANT_CONNECTION_BELL);
	for (unsigned n = 0; n < p->cards; n++)
		grants |= GRANT(GRANT_CARDS + n) | GRANT(GRANT_CARD_BELLS + n) |
			  GRANT(GRANT_CARD_ANSWERS + n);
	return grants;
}

/*
 * The way of a forked machine. Who forked it stands still until the byte in GRANT_READY: from then
 * on nothing of it is looked at.
 */
static bool go_on_forked(struct process *p)
{
	const uint64_t of_devices = grants_of_devices(p);
	const uint8_t byte = 1;

	forker_keep(GRANT(GRANT_RINGS) | GRANT(GRANT_TO_BROKER) | GRANT(GRANT_TO_MACHINE) |
		    GRANT(GRANT_CODE) | GRANT(GRANT_READY) | of_devices);
	locks_make(p);
	if (!take_rings(p) || !take_devices(p, of_devices) ||
	    machine_forked(p->machine, grant_fd(GRANT_CODE)) ||
	    fork_place_revive(&p->listener_place) || fork_place_revive(&p->main_place) ||
	    write(grant_fd(GRANT_READY), &byte, sizeof(byte)) != sizeof(byte))
		return false;
	close(grant_fd(GRANT_CODE));
	close(grant_fd(GRANT_READY));
	if (lockdown_load(&p->calls))
		return false;
	tell(p, RECORD_STARTED, NULL, 0);
	machine_fork_go(p->machine);
	return true;
}

static void process_go_on_forked(struct process *p)
{
	if (!go_on_forked(p))
		_exit(EXIT_FAULT);
}

/* ---- its life ---- */

/* With the threads beside its own, which wait. False: the broker was told why not. */
static bool process_make_machine(struct process *p, const struct machine_options *options)
{
	const char *reason = "the host refused to take its rights";
	int error = limit_memory(options);

	if (!error)
		error = lockdown_before_threads(ROLE_MACHINE, NULL);
	if (!error)
		error = prepare_forks(p);
	if (!error)
		p->machine = machine_create(options, &error, &reason);
	if (!p->machine || pthread_create(&p->listener, NULL, listen_to_broker, p) ||
	    pthread_create(&p->saver, NULL, save_when_wanted, p)) {
		tell_refusal(p, error, reason);
		return false;
	}
	return true;
}

static void process_tell_end(struct process *p, enum machine_end end)
{
	char text[WORDS_BYTES];
	int error;

	if (p->plan->machine.statistics) {
		machine_statistics(p->machine, text, sizeof(text));
		tell(p, RECORD_STATISTICS, text, strlen(text));
	}
	if (end == MACHINE_REFUSED) {
		const char *reason = machine_refusal(p->machine, &error);

		tell_refusal(p, error, reason);
	} else {
		tell_end(p, end);
	}
}

/* False: it was not given what it needs. */
static bool process_begin(struct process *p, struct machine_options *options)
{
	struct tm unused;
	time_t now = 0;

	*p = (struct process){ .ring = PTHREAD_MUTEX_INITIALIZER,
			       .saving = PTHREAD_MUTEX_INITIALIZER,
			       .save_ready = PTHREAD_COND_INITIALIZER };
	pthread_barrier_init(&p->listening, NULL, LISTENERS + 1);
	p->plan = plan_of_process();
	if (!p->plan || !take_grants(p, role_grants_here(), options))
		return false;
	take_plan(p, options);
	gmtime_r(&now, &unused); /* reads the time zone's file: now or never */
	return true;
}

int machine_main(void)
{
	struct process p;
	struct machine_options options = { 0 };
	int error;

	if (!process_begin(&p, &options))
		return EXIT_FAULT;
	if (!process_make_machine(&p, &options))
		return 0;
	error = machine_start_threads(p.machine);
	pthread_barrier_wait(&p.listening);
	if (!error)
		error = lockdown(ROLE_MACHINE);
	if (error) {
		tell_end(&p, MACHINE_FAILED);
		return 0; /* the threads end with the process */
	}
	tell(&p, RECORD_STARTED, NULL, 0);
	if (!fork_place_take(&p.main_place))
		machine_go(p.machine);
	process_tell_end(&p, machine_wait(p.machine));
	return 0;
}
