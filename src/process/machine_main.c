/*
 * The machine process's main: makes the machine, gives up its rights, runs the guest, and tells the
 * broker how it ended.
 *
 * Threads: the processors' (vm/lifecycle.c), one that listens to the broker, and has the machine
 * stand still to be forked, and one that does what takes its time: it saves the machine, say. After
 * lockdown() the process holds two event descriptors, with a bus two more, an end of two pipes for
 * each network card, and memory, nothing else.
 *
 * In what is forked (ipc/forker.h) it is the saver that goes on, in go_on_forked(): it takes what
 * the new broker has given, brings the other threads back to where they began, gives up what it
 * needed for that, and is the saver again.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "assertion.h"
#include "ipc/early.h"
#include "ipc/lockdown.h"
#include "lib/brief_wait.h"
#include "machine_process.h"
#include "mains.h"
#include "sanitized.h"

enum { EXIT_FAULT = 70, WORDS_BYTES = 4096, LISTENERS = 2, FORKED_TIMER_SLACK_NS = 1 };

static void tell(struct process *process, uint32_t kind, const void *data, size_t bytes)
{
	assert(bytes <= RING_RECORD_MAX_BYTES);
	pthread_mutex_lock(&process->ring);
	while (ring_put(&process->to_broker, kind, data, (uint32_t)bytes) == -EAGAIN)
		ring_wait(&process->to_broker);
	pthread_mutex_unlock(&process->ring);
}

static void console(void *context, const uint8_t *data, size_t bytes)
{
	tell(context, RECORD_CONSOLE, data, bytes);
}

static void stuck(void *context, const char *text)
{
	tell(context, RECORD_STUCK, text, strlen(text));
}

static void want_fork(void *context, bool is_wanted)
{
	const uint32_t wanted = is_wanted;

	tell(context, RECORD_WANT_FORK, &wanted, sizeof(wanted));
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
static void want(struct process *process, bool *which)
{
	pthread_mutex_lock(&process->saving);
	*which = true;
	pthread_cond_signal(&process->save_ready);
	pthread_mutex_unlock(&process->saving);
}

static bool take_wish(bool *which)
{
	bool wanted = *which;

	*which = false;
	return wanted;
}

enum wish { WISH_OF_UNITS, WISH_OF_FORK, WISH_OF_SAVE, WISH_OF_SHOW, WISH_OF_LIST };

static bool has_wish(const struct process *process)
{
	return process->save_wanted || process->fork_wanted || process->units_wanted ||
	       process->show_wanted || process->list_wanted;
}

static enum wish wait_for_wish(struct process *process)
{
	enum wish wish = WISH_OF_SHOW;

	pthread_mutex_lock(&process->saving);
	process->saver_rests = true;
	while (!has_wish(process))
		pthread_cond_wait(&process->save_ready, &process->saving);
	process->saver_rests = false;
	if (take_wish(&process->units_wanted)) /* of the fork before */
		wish = WISH_OF_UNITS;
	else if (take_wish(&process->fork_wanted))
		wish = WISH_OF_FORK;
	else if (take_wish(&process->save_wanted))
		wish = WISH_OF_SAVE;
	else if (!take_wish(&process->show_wanted) && take_wish(&process->list_wanted))
		wish = WISH_OF_LIST;
	pthread_mutex_unlock(&process->saving);
	return wish;
}

static void tell_done(struct process *process, const struct record_done *done)
{
	tell(process, RECORD_DONE, done, sizeof(*done));
}

_Static_assert((int)MACHINE_ROW_BYTES <= (int)RING_RECORD_MAX_BYTES, "a row in a record");

static void put_row(void *context, const uint8_t *pixels, size_t bytes)
{
	tell(context, RECORD_SHOWN, pixels, bytes);
}

static void show(struct process *process)
{
	struct record_done done = { .error = 0 };

	done.error = machine_show(process->machine, put_row, process, &done.width, &done.height);
	tell_done(process, &done);
}

static void put_listing(void *context, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	for (size_t n; bytes; from += n, bytes -= n) {
		n = bytes < RING_RECORD_MAX_BYTES ? bytes : RING_RECORD_MAX_BYTES;
		tell(context, RECORD_SHOWN, from, n);
	}
}

/* What it is about was said before the wish, and is not said again before its end. */
static void list(struct process *process)
{
	struct record_done done = { .error = 0 };

	done.error = machine_list(process->machine, &process->listing, put_listing, process);
	tell_done(process, &done);
}

static void save(struct process *process)
{
	int32_t error = machine_save(process->machine, put_saved, process);

	tell(process, RECORD_SAVE_ENDED, &error, sizeof(error));
}

static void process_go_on_forked(struct process *process);

/*
 * The broker lets the machine go on with RECORD_RESUME, also when nothing came of it. Here nothing
 * is done any more when the process is forked.
 */
static void stand_still_for_fork(struct process *process)
{
	int32_t error = machine_fork_begin(process->machine);

	tell(process, RECORD_FORK_READY, &error, sizeof(error));
}

/*
 * Nothing follows that wish which its listener would have to hear, so that it does it itself, and
 * nobody else is woken. Not while the saver does something, who holds locks.
 */
static void stand_still_or_want(struct process *process)
{
	bool saver_rests;

	pthread_mutex_lock(&process->saving);
	saver_rests = process->saver_rests && !has_wish(process);
	pthread_mutex_unlock(&process->saving);
	if (saver_rests)
		stand_still_for_fork(process);
	else
		want(process, &process->fork_wanted);
}

/* Who listens waits for nobody who may wait for code: he is told when that is free. */
static void go_on(struct process *process)
{
	if (machine_go_on(process->machine))
		want(process, &process->units_wanted);
}

static void *save_when_wanted(void *context)
{
	struct process *process = context;

	pthread_barrier_wait(&process->listening);
	if (fork_place_take(&process->saver_place))
		process_go_on_forked(process);
	for (;;) {
		switch (wait_for_wish(process)) {
		case WISH_OF_FORK: stand_still_for_fork(process); break;
		case WISH_OF_UNITS: machine_go_on_whole(process->machine); break;
		case WISH_OF_SAVE: save(process); break;
		case WISH_OF_SHOW: show(process); break;
		case WISH_OF_LIST: list(process); break;
		}
	}
	return NULL;
}

static void set_memory(struct process *process, const uint8_t *data, uint32_t bytes)
{
	uint64_t wanted;

	if (bytes != sizeof(wanted))
		return;
	memcpy(&wanted, data, sizeof(wanted));
	machine_set_memory(process->machine, wanted);
}

static void rejoin(struct process *process, const uint8_t *data, uint32_t bytes)
{
	struct record_span span;

	if (bytes != sizeof(span))
		return;
	memcpy(&span, data, sizeof(span));
	machine_rejoin(process->machine, span.at, span.bytes);
}

static void advise_memory(struct process *process, const uint8_t *data, uint32_t bytes)
{
	uint64_t advised;

	if (bytes != sizeof(advised))
		return;
	memcpy(&advised, data, sizeof(advised));
	machine_advise_memory(process->machine, advised);
}

static uint64_t state_flags(const struct machine_state *state)
{
	uint64_t flags = 0;

	if (state->health == MACHINE_HEALTH_GOOD)
		flags |= STATE_ANSWERS;
	if (state->health == MACHINE_HEALTH_LOST)
		flags |= STATE_SILENT;
	if (state->has_memory_driver)
		flags |= STATE_MEMORY_DRIVER;
	if (state->has_memory_status)
		flags |= STATE_MEMORY_STATUS;
	if (state->automatic)
		flags |= STATE_AUTOMATIC;
	if (state->is_advised)
		flags |= STATE_ADVISED;
	if (state->can_grow)
		flags |= STATE_GROWS;
	if (state->is_silent)
		flags |= STATE_MEMORY_SILENT;
	return flags;
}

static void tell_keys(struct process *process)
{
	char text[MACHINE_KEYS_BYTES];

	machine_read_keys(process->machine, text);
	tell(process, RECORD_KEYS, text, strlen(text));
}

static void rejoined(void *context, uint64_t at)
{
	tell(context, RECORD_REJOINED, &at, sizeof(at));
}

static void state(void *context, const struct machine_state *machine_state)
{
	struct process *process = context;
	const struct record_state record = {
		.flags = state_flags(machine_state),
		.held_bytes = machine_state->held_bytes,
		.assigned_bytes = machine_state->assigned_bytes,
		.target_bytes = machine_state->target_bytes,
		.available_bytes = machine_state->available_bytes,
		.committed_bytes = machine_state->committed_bytes,
		.reports = machine_state->reports,
		.given_back_bytes = machine_state->given_back_bytes,
		.refused_regions = machine_state->refused_regions,
		.unused_regions = machine_state->unused_regions,
	};

	if (machine_state->key_changes != process->told_keys)
		tell_keys(process);
	process->told_keys = machine_state->key_changes;
	tell(context, RECORD_STATE, &record, sizeof(record));
}

static void code(void *context, uint64_t lost, const struct machine_code *codes, unsigned count)
{
	struct { uint64_t lost; struct record_code code[MACHINE_CODES]; } record = { .lost = lost };

	_Static_assert((int)MACHINE_SYMBOL_BYTES <= (int)RECORD_CODE_NAME_BYTES, "it has room");
	_Static_assert(sizeof(record) <= (size_t)RING_RECORD_MAX_BYTES, "all in one record");
	assert(count <= MACHINE_CODES);
	for (unsigned n = 0; n < count; n++) {
		record.code[n].hva = codes[n].hva;
		record.code[n].bytes = codes[n].bytes;
		memcpy(record.code[n].name, codes[n].name, sizeof(codes[n].name));
	}
	tell(context, RECORD_CODE, &record,
	     sizeof(record.lost) + count * sizeof(record.code[0]));
}

static void frozen(void *context, int error)
{
	int32_t told = error;

	tell(context, RECORD_FROZEN, &told, sizeof(told));
}

/* Who is not asked has answered. */
static void freeze(struct process *process, bool freeze)
{
	int error = machine_freeze(process->machine, freeze);

	if (error)
		frozen(process, error);
}

static void copied(void *context, int error)
{
	tell_done(context, &(struct record_done){ .error = error });
}

/* Who is not asked has answered. */
static int copy_begin(struct process *process, uint8_t *data, uint32_t bytes)
{
	struct record_copy head;
	const char *folder = (const char *)data + sizeof(head);
	const char *name;

	if (bytes < sizeof(head) + 2 || data[bytes - 1])
		return -EINVAL;
	memcpy(&head, data, sizeof(head));
	name = folder + strlen(folder) + 1;
	if (name >= (const char *)data + bytes)
		return -EINVAL;
	return machine_copy_begin(process->machine, folder, name, head.bytes, head.replaces);
}

static void copy(struct process *process, uint32_t kind, uint8_t *data, uint32_t bytes)
{
	int error;

	if (kind == RECORD_COPY_BEGIN)
		error = copy_begin(process, data, bytes);
	else if (kind == RECORD_COPY_PIECE)
		error = machine_copy_piece(process->machine, data, bytes);
	else
		error = machine_copy_end(process->machine, bytes && data[0]);
	if (error)
		copied(process, error);
}

static void type(struct process *process, const uint8_t *data, uint32_t bytes)
{
	copied(process, machine_type(process->machine, data, bytes));
}

/* What takes its time is answered by the storage device. */
static void change_disk(struct process *process, const uint8_t *data, uint32_t bytes)
{
	struct record_disk record;
	int error = -EINVAL;

	if (bytes == sizeof(record)) {
		memcpy(&record, data, sizeof(record));
		if (record.what == DISK_GOES)
			error = machine_disk_goes(process->machine, record.number);
		else if (record.what == DISK_COMES)
			error = machine_disk_comes(process->machine, record.number, &record.disk);
		else
			error = machine_disk_grows(process->machine, record.number,
						   record.disk.size_bytes);
	}
	if (error || record.what != DISK_GOES)
		copied(process, error);
}

static void set_trace(struct process *process, const uint8_t *data, uint32_t bytes)
{
	uint32_t wanted;

	if (bytes != sizeof(wanted))
		return;
	memcpy(&wanted, data, sizeof(wanted));
	machine_trace(process->machine, wanted);
}

/* Who is not asked has answered. */
static void want_list(struct process *process, const uint8_t *data, uint32_t bytes)
{
	bool is_good = bytes == sizeof(process->listing);

	if (is_good) {
		pthread_mutex_lock(&process->saving);
		memcpy(&process->listing, data, sizeof(process->listing));
		pthread_mutex_unlock(&process->saving);
		want(process, &process->list_wanted);
	} else {
		copied(process, -EINVAL);
	}
}

static void shut_down(struct process *process)
{
	int32_t asked = machine_shut_down(process->machine);

	tell(process, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
}

_Static_assert((int)MACHINE_MAX_CPUS <= REGISTERS_MOST, "all in one record");
_Static_assert((int)MACHINE_CPU_HALTED == REGISTERS_HALTED &&
		       (int)MACHINE_CPU_WAITS == REGISTERS_WAITS &&
		       (int)MACHINE_CPU_ASLEEP == REGISTERS_ASLEEP,
	       "as it is told");
_Static_assert(sizeof(((struct broker_memory *)NULL)->generation) == MACHINE_GENERATION_BYTES,
	       "as it is given");
_Static_assert((int)MACHINE_SYMBOL_BYTES == REGISTERS_SYMBOL_BYTES, "as it is told");

static void look(struct process *process)
{
	struct machine_registers registers[MACHINE_MAX_CPUS];
	struct record_registers records[MACHINE_MAX_CPUS];
	char counters[RING_RECORD_MAX_BYTES];
	unsigned cpus;

	/* of who does not answer: what it said before; of a machine that never ran nothing */
	if (machine_look(process->machine, registers, &cpus) == -ECANCELED)
		return;
	machine_statistics(process->machine, counters, sizeof(counters));
	tell(process, RECORD_COUNTERS, counters, strlen(counters));
	assert(cpus && cpus <= MACHINE_MAX_CPUS);
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
	tell(process, RECORD_REGISTERS, records, cpus * sizeof(records[0]));
}

static void fork_ended(struct process *process, const uint8_t *data)
{
	struct record_fork_ended ended;

	memcpy(&ended, data, sizeof(ended));
	machine_fork_ended(process->machine, ended.error, ended.child);
}

static void *listen_to_broker(void *context)
{
	struct process *process = context;
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind, bytes;
	uint64_t count;

	pthread_barrier_wait(&process->listening);
	if (fork_place_take(&process->listener_place))
		forker_leave_processor();
	while (read(grant_fd(GRANT_TO_MACHINE), &count, 8) == 8)
		while (ring_get(&process->from_broker, &kind, data, &bytes) > 0)
			if (kind == RECORD_INPUT)
				machine_input(process->machine, data, bytes);
			else if (kind == RECORD_STOP)
				machine_stop(process->machine);
			else if (kind == RECORD_SAVE)
				want(process, &process->save_wanted);
			else if (kind == RECORD_FORK)
				stand_still_or_want(process);
			else if (kind == RECORD_RESUME)
				machine_resume(process->machine);
			else if (kind == RECORD_GO_ON)
				go_on(process);
			else if (kind == RECORD_ADVICE)
				advise_memory(process, data, bytes);
			else if (kind == RECORD_MEMORY)
				set_memory(process, data, bytes);
			else if (kind == RECORD_SHUT_DOWN)
				shut_down(process);
			else if (kind == RECORD_FREEZE || kind == RECORD_THAW)
				freeze(process, kind == RECORD_FREEZE);
			else if (kind == RECORD_FORK_ENDED)
				fork_ended(process, data);
			else if (kind == RECORD_LOOK)
				look(process);
			else if (kind == RECORD_TYPE)
				type(process, data, bytes);
			else if (kind == RECORD_SHOW)
				want(process, &process->show_wanted);
			else if (kind == RECORD_LIST)
				want_list(process, data, bytes);
			else if (kind == RECORD_DISK)
				change_disk(process, data, bytes);
			else if (kind == RECORD_REJOIN)
				rejoin(process, data, bytes);
			else if (kind == RECORD_TRACE)
				set_trace(process, data, bytes);
			else if (kind >= RECORD_COPY_BEGIN && kind <= RECORD_COPY_END)
				copy(process, kind, data, bytes);
	return NULL;
}

static void tell_end(struct process *process, enum machine_end end)
{
	const char *text = machine_crash_text(process->machine);
	uint8_t data[8 + WORDS_BYTES];
	int32_t codes[2] = { end, machine_debug_exit_code(process->machine) };
	size_t bytes = text ? strnlen(text, WORDS_BYTES) : 0;

	memcpy(data, codes, 8);
	memcpy(data + 8, text ? text : "", bytes);
	tell(process, RECORD_ENDED, data, 8 + bytes);
}

static void tell_refusal(struct process *process, int error, const char *reason)
{
	uint8_t data[4 + WORDS_BYTES];
	int32_t code = error;
	size_t bytes = strnlen(reason, WORDS_BYTES);

	memcpy(data, &code, 4);
	memcpy(data + 4, reason, bytes);
	tell(process, RECORD_REFUSED, data, 4 + bytes);
}

/* ---- what it is to be ---- */

static void take_plan(struct process *process, struct machine_options *options)
{
	const struct machine_plan *plan = &process->plan->machine;

	options->memory_bytes = plan->memory_bytes;
	options->start_bytes = plan->start_memory_bytes;
	options->least_memory_bytes = plan->least_memory_bytes;
	options->memory_buffer_percent = plan->memory_buffer_percent;
	options->overhead_bytes = plan->overhead_bytes;
	options->hv_features = plan->hv_features;
	options->cpus = plan->cpus;
	options->debug_exit = plan->debug_exit;
	options->time_limit_s = plan->time_limit_s;
	options->begun = plan->begun;
	options->without = plan->without;
	options->mmu_tables_left_open = plan->mmu_tables_left_open;
	options->test_device = plan->test_device;
	options->model = plan->model;
	options->host = plan->host;
	options->command_line = plan->command_line;
	options->generation = process->rings->generation;
	options->console = console;
	options->state = state;
	options->rejoined = rejoined;
	options->stuck = stuck;
	options->want_fork = plan->guest_forks ? want_fork : NULL;
	options->frozen = frozen;
	options->copied = copied;
	options->code = plan->perf_map ? code : NULL;
	options->display = plan->display;
	options->given_keys = plan->given_keys;
	options->trace = &process->rings->trace;
	options->context = process;
	assertion_describe_in(process->rings->last_words, sizeof(process->rings->last_words));
	options->last_words = process->rings->last_words;
	options->last_words_bytes = sizeof(process->rings->last_words);
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

static void tell_started(struct process *process)
{
	size_t bytes;
	const uint8_t *ram = machine_ram(process->machine, &bytes);
	const struct record_ram where = { .hva = (uint64_t)ram, .bytes = bytes };

	tell(process, RECORD_STARTED, &where, sizeof(where));
}

/* ---- forks ---- */

static bool is_forked(const struct process *process)
{
	return !SANITIZED && process->plan->machine.forks;
}

/*
 * Of a machine that its broker may have forked, while there is one thread. Its forker begins while
 * the machine is made. 0 or -errno.
 */
static int prepare_forks(struct process *process)
{
	int error;

	if (!is_forked(process))
		return 0;
	error = lockdown_compile_forked(ROLE_MACHINE, &process->calls);
	if (!error)
		error = lockdown_compile(ROLE_FORKER, &process->forkers_calls);
	if (error)
		return error;
	prctl(PR_SET_TIMERSLACK, FORKED_TIMER_SLACK_NS); /* for who cannot say so later */
	forker_set_place(&process->saver_place);
	error = fork_place_enlist(&process->listener_place);
	if (!error)
		error = fork_place_enlist(&process->main_place);
	if (error)
		return error;
	return forker_start(&process->forkers_calls);
}

static void locks_make(struct process *process)
{
	pthread_mutex_init(&process->ring, NULL);
	pthread_mutex_init(&process->saving, NULL);
	pthread_cond_init(&process->save_ready, NULL);
	process->save_wanted = process->fork_wanted = process->units_wanted =
		process->show_wanted = process->list_wanted = process->saver_rests = false;
	process->told_keys = 0;
}

/* What a forked machine is given for its devices, of all that a kit has. */
static grant_set grants_of_devices(const struct process *process)
{
	grant_set grants = 0;

	if (process->slots)
		grants |= GRANT(GRANT_SLOTS) | GRANT(GRANT_DOORBELL) | GRANT(GRANT_ANSWER);
	if (process->connections.memory)
		grants |= GRANT(GRANT_CONNECTIONS) | GRANT(GRANT_CONNECTION_BELL);
	for (unsigned n = 0; n < process->cards; n++)
		grants |= GRANT(GRANT_CARDS + n) | GRANT(GRANT_CARD_BELLS + n) |
			  GRANT(GRANT_CARD_ANSWERS + n);
	for (unsigned n = 0; n < process->ports; n++)
		grants |= GRANT(GRANT_PORTS + n) | GRANT(GRANT_PORT_BELLS + n) |
			  GRANT(GRANT_PORT_ANSWERS + n) | GRANT(GRANT_WINDOW_LINES + n);
	return grants;
}

/* ---- one that is read ---- */

/* Its reader is woken once there is no room, or all of it has been said. */
static void add(struct process *process, const void *data, size_t bytes)
{
	struct ring_end *to = &process->to_broker;

	while (ring_add(to, RECORD_SAVED, data, (uint32_t)bytes) == -EAGAIN) {
		ring_wake(to);
		ring_wait(to);
	}
}

static void send_bytes(struct process *process, const struct record_read *wanted)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint64_t at = wanted->at;

	for (uint64_t left = wanted->bytes; left;) {
		const size_t bytes = left < sizeof(data) ? left : sizeof(data);

		if (machine_serve_read(process->machine, at, data, bytes))
			_exit(EXIT_FAULT);
		add(process, data, bytes);
		at += bytes;
		left -= bytes;
	}
	ring_wake(&process->to_broker);
}

/*
 * Until its reader is gone: with that its forker ends it. Who has just asked soon asks again, and
 * waits for others meanwhile.
 */
static _Noreturn void serve(struct process *process)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	struct record_read wanted;
	uint32_t kind, bytes;
	uint64_t count;
	struct brief_wait brief = { .is_far = true };

	for (;;) {
		while (ring_get(&process->from_broker, &kind, data, &bytes) > 0) {
			brief_wait_found(&brief);
			if (kind == RECORD_READ && bytes == sizeof(wanted)) {
				memcpy(&wanted, data, sizeof(wanted));
				send_bytes(process, &wanted);
			}
		}
		if (!brief_wait_looks(&brief) &&
		    read(grant_fd(GRANT_TO_MACHINE), &count, 8) != 8)
			_exit(EXIT_FAULT);
	}
}

/* Its other threads wait in the page for ever. */
static _Noreturn void go_on_serving(struct process *process)
{
	struct record_serves serves = { 0 };

	if (lockdown_load(&process->calls))
		_exit(EXIT_FAULT);
	serves.error = machine_serve(process->machine, &serves.bytes, &serves.parts_at);
	tell(process, RECORD_SERVES, &serves, sizeof(serves));
	serve(process);
}

/* Others are forked of it: it has code that nobody changes, and stands until its broker is gone. */
static _Noreturn void go_on_standing(struct process *process)
{
	uint64_t count;

	if (lockdown_load(&process->calls))
		_exit(EXIT_FAULT);
	while (read(grant_fd(GRANT_TO_MACHINE), &count, 8) == 8)
		;
	_exit(EXIT_FAULT);
}

static bool is_told(void)
{
	uint64_t count;

	return read(grant_fd(GRANT_TO_MACHINE), &count, sizeof(count)) == sizeof(count);
}

/*
 * Who forked it stands still or holds its code until the byte in GRANT_READY, as what is copied
 * here is that. All else is this process's already.
 */
static bool part_from_parent(struct process *process, uint32_t as)
{
	const uint8_t byte = 1;

	if (as == FORKED_TO_SERVE)
		machine_leave_code(process->machine);
	else if (machine_take_code(process->machine, grant_fd(GRANT_CODE)))
		return false;
	if (write(grant_fd(GRANT_READY), &byte, sizeof(byte)) != sizeof(byte))
		return false;
	close(grant_fd(GRANT_CODE));
	close(grant_fd(GRANT_READY));
	return true;
}

/* The way of a forked machine. */
static bool go_on_forked(struct process *process)
{
	const grant_set of_devices = grants_of_devices(process);
	uint32_t as;

	forker_keep(GRANT(GRANT_RINGS) | GRANT(GRANT_TO_BROKER) | GRANT(GRANT_TO_MACHINE) |
		    GRANT(GRANT_CODE) | GRANT(GRANT_READY) | of_devices);
	locks_make(process);
	if (!process_take_rings(process))
		return false;
	as = process->rings->forked_as;
	if (!part_from_parent(process, as) ||
	    (as <= FORKED_TO_RUN_WHEN_TOLD && machine_forked(process->machine)))
		return false;
	if (!process_take_devices(process, of_devices) || !process_take_other_ports(process))
		return false;
	if (as >= FORKED_TO_SERVE)
		forker_leave_processor();
	if (as == FORKED_TO_SERVE)
		go_on_serving(process);
	if (as == FORKED_TO_STAND)
		go_on_standing(process);
	if (machine_forked_whole(process->machine) || lockdown_load(&process->calls) ||
	    (as == FORKED_TO_RUN_WHEN_TOLD && !is_told()))
		return false;
	machine_fork_go(process->machine);
	tell_started(process);
	fork_place_revive(&process->listener_place);
	fork_place_revive(&process->main_place);
	forker_leave_processor();
	return true;
}

static void process_go_on_forked(struct process *process)
{
	if (!go_on_forked(process))
		_exit(EXIT_FAULT);
}

/* ---- its life ---- */

/* With the threads beside its own, which wait. False: the broker was told why not. */
static bool process_make_machine(struct process *process, const struct machine_options *options)
{
	const char *reason = "the host refused to take its rights";
	int error = process->rights_error;

	if (!error)
		error = limit_memory(options);
	if (!error)
		error = prepare_forks(process);
	if (!error)
		process->machine = machine_create(options, &error, &reason);
	if (process->machine && is_forked(process))
		error = forker_wait();
	if (!process->machine || error ||
	    pthread_create(&process->listener, NULL, listen_to_broker, process) ||
	    pthread_create(&process->saver, NULL, save_when_wanted, process)) {
		tell_refusal(process, error, reason);
		return false;
	}
	return true;
}

static void process_tell_end(struct process *process, enum machine_end end)
{
	char text[WORDS_BYTES];
	int error;

	if (process->plan->machine.statistics) {
		machine_statistics(process->machine, text, sizeof(text));
		tell(process, RECORD_STATISTICS, text, strlen(text));
	}
	if (end == MACHINE_REFUSED) {
		const char *reason = machine_refusal(process->machine, &error);

		tell_refusal(process, error, reason);
	} else {
		tell_end(process, end);
	}
}

/* False: it was not given what it needs. */
static bool process_begin(struct process *process, struct machine_options *options)
{
	const int rights_error = lockdown_before_threads(ROLE_MACHINE, NULL);

	if (early_take())
		return false;
	*process = (struct process){ .rights_error = rights_error,
				     .ring = PTHREAD_MUTEX_INITIALIZER,
				     .saving = PTHREAD_MUTEX_INITIALIZER,
				     .save_ready = PTHREAD_COND_INITIALIZER };
	pthread_barrier_init(&process->listening, NULL, LISTENERS + 1);
	process->plan = plan_of_process();
	if (!process->plan || !process_take_grants(process, role_grants_here(), options))
		return false;
	take_plan(process, options);
	return true;
}

static void guard_windows(struct process *process)
{
	size_t ram_bytes;
	uint8_t *ram = machine_ram(process->machine, &ram_bytes);

	port_windows_guard(process->window, process->ports, ram, ram_bytes);
}

int machine_main(void)
{
	struct process process;
	struct machine_options options = { 0 };
	int error;

	if (!process_begin(&process, &options))
		return EXIT_FAULT;
	if (!process_make_machine(&process, &options))
		return 0;
	error = machine_start_threads(process.machine);
	pthread_barrier_wait(&process.listening);
	guard_windows(&process);
	if (!error)
		error = lockdown(ROLE_MACHINE);
	if (error) {
		tell_end(&process, MACHINE_FAILED);
		return 0; /* the threads end with the process */
	}
	tell_started(&process);
	if (fork_place_take(&process.main_place))
		forker_leave_processor();
	else
		machine_go(process.machine);
	process_tell_end(&process, machine_wait(process.machine));
	return 0;
}
