/*
 * One thread, one poll. Input that the machine does not take stays in `pending`; nothing is taken
 * from the ring while the console has no room for it, so that a flooding guest waits for the
 * terminal, and nothing else waits for that: not signals, not who asks, not the end.
 */
#include "broker_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/write_all.h"
#include "pager_left.h"
#include "sanitized.h"

enum { RECORDS_PER_TURN = 16, RING_FULL_MS = 20, SPARE_HELPER_MS = 3000, OWN_FDS = 9 };

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void broker_say(struct broker *b, enum message message)
{
	assert(message < MESSAGES);
	b->unsaid |= 1u << message;
}

/* ---- its life ---- */

/*
 * The outcome is the first one: a machine that has said its end has ended so, whatever it does
 * then.
 */
void broker_kill(struct broker *b, enum broker_outcome outcome)
{
	if (!life_can_move(&b->life, LIFE_KILLED))
		return;
	if (b->life.state != LIFE_ENDED)
		b->end->outcome = outcome;
	life_move(&b->life, LIFE_KILLED, now_ms());
	syscall(SYS_pidfd_send_signal, grant_fd(GRANT_MACHINE), SIGKILL, NULL, 0);
}

static void ask_to_stop(struct broker *b)
{
	if (!life_can_move(&b->life, LIFE_STOPPING))
		return;
	life_move(&b->life, LIFE_STOPPING, now_ms());
	broker_say(b, SAY_STOP);
}

/*
 * Politely once: the guest may have something to write, one of a forked machine also before its
 * disks are there. Who asks again does not want to wait.
 */
static void ask_to_shut_down(struct broker *b)
{
	if (b->adopted && b->life.state == LIFE_STARTING && !b->shut_down_waits) {
		b->shut_down_waits = true;
		return;
	}
	if (!life_can_move(&b->life, LIFE_ASKING)) {
		ask_to_stop(b);
		return;
	}
	life_move(&b->life, LIFE_ASKING, now_ms());
	broker_say(b, SAY_SHUT_DOWN);
}

static void life_turn(struct broker *b)
{
	enum life_state due = life_due(&b->life, now_ms());

	if (due == b->life.state)
		return;
	if (due == LIFE_STOPPING)
		ask_to_stop(b);
	else
		broker_kill(b, BROKER_STOPPED);
}

void broker_grant(void *context, enum control_wish wish)
{
	struct broker *b = context;

	switch (wish) {
	case WISH_STOP: ask_to_shut_down(b); break;
	case WISH_KILL: broker_kill(b, BROKER_STOPPED); break;
	case WISH_SAVE: broker_say(b, SAY_SAVE); break;
	case WISH_RESUME: broker_say(b, SAY_RESUME); break;
	case WISH_MEMORY: broker_say(b, SAY_MEMORY); break;
	case WISH_ADVICE: broker_say(b, SAY_ADVICE); break;
	case WISH_LOOK: broker_say(b, SAY_LOOK); break;
	case WISH_FREEZE: broker_say(b, SAY_FREEZE); break;
	case WISH_THAW: broker_say(b, SAY_THAW); break;
	case WISH_FORK: broker_say(b, SAY_FORK); break;
	case WISH_ASK: broker_say(b, SAY_ASK); break;
	case WISH_FORK_ENDED: broker_say(b, SAY_FORK_ENDED); break;
	case WISH_DISK:
		if (disk_work_begin(&b->disks))
			broker_say(b, SAY_ASK);
		break;
	case WISH_TRACE:
		tracer_changed(&b->tracer, &b->control, &b->memory->trace, now_ms());
		broker_say(b, SAY_TRACE);
		break;
	default: break;
	}
}

/* ---- what the machine says ---- */

/*
 * Bytes of the machine as text for a terminal: bounded, NUL-terminated, nothing but printable ASCII
 * and line ends.
 */
static void take_text(char *to, const uint8_t *from, uint32_t bytes)
{
	assert(bytes <= RING_RECORD_MAX_BYTES);
	for (uint32_t n = 0; n < bytes; n++)
		to[n] = from[n] == '\n' || (from[n] >= ' ' && from[n] < 0x7f) ? (char)from[n] : '.';
	to[bytes] = 0;
}

static bool take_started(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	if (!rejoin_set_ram(&b->rejoin, data, bytes))
		return false;
	terminal_make_raw(&b->terminal);
	if (life_can_move(&b->life, LIFE_RUNNING))
		life_move(&b->life, LIFE_RUNNING, now_ms());
	if (b->shut_down_waits)
		ask_to_shut_down(b);
	b->shut_down_waits = false;
	return true;
}

static bool take_end(struct broker *b, enum broker_outcome outcome, const uint8_t *data,
		     uint32_t bytes)
{
	uint32_t fixed = outcome == BROKER_ENDED ? 8 : 4;

	if (bytes < fixed || !life_can_move(&b->life, LIFE_ENDED))
		return b->life.state == LIFE_KILLED;
	life_move(&b->life, LIFE_ENDED, now_ms());
	b->end->outcome = outcome;
	memcpy(&b->end->code, data, 4);
	if (outcome == BROKER_ENDED)
		memcpy(&b->end->debug_exit_code, data + 4, 4);
	take_text(b->end->text, data + fixed, bytes - fixed);
	return true;
}

static bool take_save_end(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	enum control_wish wish = WISH_NOTHING;
	int32_t error;

	if (bytes != sizeof(error))
		return false;
	memcpy(&error, data, sizeof(error));
	if (!control_save_ended(&b->control, error, &wish))
		return false;
	if (wish == WISH_LAYER)
		broker_begin_layers_of_save(b);
	else
		broker_grant(b, wish);
	return true;
}

/* Once, and only who was asked: one that says it again and again would never be stopped. */
static bool take_shutting_down(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	int32_t asked;

	if (bytes != sizeof(asked) || b->life.state < LIFE_ASKING ||
	    b->life.state == LIFE_POWERING_OFF)
		return false;
	memcpy(&asked, data, sizeof(asked));
	if (asked && life_can_move(&b->life, LIFE_POWERING_OFF))
		life_move(&b->life, LIFE_POWERING_OFF, now_ms());
	else
		ask_to_stop(b);
	return true;
}

/* Numbers, of whatever size: they are shown to who asks, and nothing depends on them. */
static bool take_state(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	struct record_state state;

	if (bytes != sizeof(state))
		return false;
	memcpy(&state, data, sizeof(state));
	control_set_state(&b->control, &state);
	return true;
}

/* Once for each time that it was asked. */
static bool take_registers(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	struct record_registers registers[REGISTERS_MOST];

	if (!bytes || bytes > sizeof(registers) || bytes % sizeof(registers[0]))
		return false;
	memcpy(registers, data, bytes);
	return control_looked(&b->control, registers, bytes / sizeof(registers[0]));
}

static bool take_frozen(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	int32_t error;

	if (bytes != sizeof(error))
		return false;
	memcpy(&error, data, sizeof(error));
	return control_frozen(&b->control, error);
}

static bool take_done(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	struct record_done done;

	if (bytes != sizeof(done))
		return false;
	memcpy(&done, data, sizeof(done));
	return disk_work_done(&b->disks, &done) || control_asked(&b->control, &done);
}

static bool take_keys(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	char text[RING_RECORD_MAX_BYTES + 1];

	take_text(text, data, bytes);
	control_set_keys(&b->control, text);
	return true;
}

/* Once. The machine goes on standing: somebody may want to look at it. */
static bool take_stuck(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	char text[RING_RECORD_MAX_BYTES + 1];

	if (b->stuck_told)
		return false;
	b->stuck_told = true;
	take_text(text, data, bytes);
	fprintf(stderr, "umbra: the guest is stuck: %.*s\n", (int)strcspn(text, "\n"), text);
	return true;
}

static bool take_record(struct broker *b, uint32_t kind, const uint8_t *data, uint32_t bytes)
{
	switch (kind) {
	case RECORD_CONSOLE: console_write(&b->console, data, bytes); return true;
	case RECORD_STARTED: return take_started(b, data, bytes);
	case RECORD_REFUSED: return take_end(b, BROKER_REFUSED, data, bytes);
	case RECORD_ENDED: return take_end(b, BROKER_ENDED, data, bytes);
	case RECORD_SAVED: return control_saved(&b->control, data, bytes);
	case RECORD_SAVE_ENDED: return take_save_end(b, data, bytes);
	case RECORD_STATE: return take_state(b, data, bytes);
	case RECORD_SHUTTING_DOWN: return take_shutting_down(b, data, bytes);
	case RECORD_COUNTERS: take_text(b->control.counters, data, bytes); return true;
	case RECORD_REGISTERS: return take_registers(b, data, bytes);
	case RECORD_KEYS: return take_keys(b, data, bytes);
	case RECORD_FROZEN: return take_frozen(b, data, bytes);
	case RECORD_SHOWN: return control_shown(&b->control, data, bytes);
	case RECORD_DONE: return take_done(b, data, bytes);
	case RECORD_STUCK: return take_stuck(b, data, bytes);
	case RECORD_FORK_READY: return broker_take_fork_ready(b, data, bytes);
	case RECORD_REJOINED: return rejoin_done(&b->rejoin, data, bytes);
	case RECORD_WANT_FORK: return broker_take_want_fork(b, data, bytes);
	case RECORD_CODE: return perf_map_take(&b->perf_map, data, bytes);
	case RECORD_STATISTICS: take_text(b->end->statistics, data, bytes); return true;
	default: return false;
	}
}

/* A machine that is to end does not wait for who reads its console. */
static bool may_take(const struct broker *b)
{
	const bool goes_on = !b->machine_exited && b->life.state < LIFE_STOPPING;

	return !control_is_full(&b->control) &&
	       (!goes_on || console_has_room(&b->console, RING_RECORD_MAX_BYTES));
}

/* True: there may be more. */
static bool take_records(struct broker *b)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind;
	uint32_t bytes;

	for (int n = 0; n < RECORDS_PER_TURN; n++) {
		int got = may_take(b) ? ring_get(&b->from_machine, &kind, data, &bytes) : 0;

		if (!got)
			return false;
		if (got < 0 || !take_record(b, kind, data, bytes)) {
			broker_kill(b, BROKER_RUBBISH);
			return false;
		}
	}
	return true;
}

/* ---- what it is told ---- */

static bool message_put(struct broker *b, enum message message)
{
	static const uint32_t kinds[MESSAGES] = {
		[SAY_STOP] = RECORD_STOP,           [SAY_SAVE] = RECORD_SAVE,
		[SAY_SHUT_DOWN] = RECORD_SHUT_DOWN, [SAY_MEMORY] = RECORD_MEMORY,
		[SAY_RESUME] = RECORD_RESUME,       [SAY_LOOK] = RECORD_LOOK,
		[SAY_FORK] = RECORD_FORK,          [SAY_ADVICE] = RECORD_ADVICE,
		[SAY_FREEZE] = RECORD_FREEZE,      [SAY_THAW] = RECORD_THAW,
		[SAY_GO_ON] = RECORD_GO_ON,
	};
	const uint64_t *data = NULL;

	if (message == SAY_ASK)
		return !ring_put(&b->to_machine, b->control.ask.kind, b->control.ask.data,
				 b->control.ask.bytes);
	if (message == SAY_FORK_ENDED)
		return !ring_put(&b->to_machine, RECORD_FORK_ENDED, &b->control.guest_fork.ended,
				 sizeof(b->control.guest_fork.ended));
	if (message == SAY_REJOIN)
		return !ring_put(&b->to_machine, RECORD_REJOIN, &b->rejoin.span,
				 sizeof(b->rejoin.span));
	if (message == SAY_TRACE)
		return !ring_put(&b->to_machine, RECORD_TRACE, &b->control.trace.wanted,
				 sizeof(b->control.trace.wanted));
	assert(kinds[message]);
	if (message == SAY_MEMORY)
		data = &b->control.memory_bytes;
	if (message == SAY_ADVICE)
		data = &b->control.advice_bytes;

	return !ring_put(&b->to_machine, kinds[message], data, data ? sizeof(*data) : 0);
}

static void message_said(struct broker *b, enum message message)
{
	int kits[FORK_CHILDREN * KIT_MOST_FDS];
	unsigned count;

	b->unsaid &= ~(1u << message);
	if (message == SAY_RESUME && b->fork.state != FORK_IDLE) {
		/* a span is common now, and it goes on with this */
		b->unsaid &= ~(1u << SAY_REJOIN | 1u << SAY_GO_ON);
		rejoin_begin(&b->rejoin, now_ms());
	}
	if (message == SAY_RESUME)
		fork_end(&b->fork);
	if (message == SAY_REJOIN)
		rejoin_told(&b->rejoin);
	if (message != SAY_FORK)
		return;
	count = control_take_kits(&b->control, kits);
	assert(count <= FORK_CHILDREN * KIT_MOST_FDS);
	fork_begin(&b->fork, kits, count);
	fork_look_at_time(&b->fork, now_ms()); /* which begins now */
}

/* What stands since its fork is copied by nobody, and may be looked at. */
static bool may_look(const struct broker *b)
{
	return b->fork.state == FORK_HELD && b->control.suspended;
}

/* While it is forked a machine changes nothing, and so hears of nothing. */
static bool may_say(const struct broker *b, enum message message)
{
	if (message == SAY_FORK && b->unsaid & (1u << SAY_RESUME))
		return false; /* which is about the time before it */
	return b->unsaid & (1u << message) &&
	       (b->fork.state == FORK_IDLE || message == SAY_RESUME || message == SAY_GO_ON ||
		(message == SAY_LOOK && may_look(b)));
}

static void say_all(struct broker *b)
{
	assert(b->pending_used <= INPUT_BYTES && !(b->unsaid >> MESSAGES));
	if (!b->control.fork_waits) /* who asked for it may be gone */
		b->unsaid &= ~(1u << SAY_FORK);
	for (unsigned n = 0; n < MESSAGES; n++)
		if (may_say(b, (enum message)n) && message_put(b, (enum message)n))
			message_said(b, (enum message)n);
	if (b->pending_used && b->fork.state == FORK_IDLE &&
	    !ring_put(&b->to_machine, RECORD_INPUT, b->pending, (uint32_t)b->pending_used))
		b->pending_used = 0;
}

static void take_key(struct broker *b, uint8_t byte)
{
	assert(b->pending_used < INPUT_BYTES);
	switch (terminal_key(&b->terminal, byte)) {
	case KEY_OF_GUEST: b->pending[b->pending_used++] = byte; break;
	case KEY_HELP:
		console_write(&b->console, (const uint8_t *)terminal_help, strlen(terminal_help));
		break;
	case KEY_STOP: ask_to_stop(b); break;
	default: break;
	}
}

static void read_input(struct broker *b)
{
	uint8_t bytes[INPUT_BYTES];
	ssize_t n = read(b->input, bytes, INPUT_BYTES - b->pending_used);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		b->input = -1;
	for (ssize_t k = 0; k < n; k++)
		take_key(b, bytes[k]);
}

/* ---- processes ---- */

/* When it ends the machine goes on: another one stands by (standby.h). */
static bool is_spare(enum role role)
{
	return role == ROLE_SUPERVISOR || role == ROLE_JOINER;
}

static void helper_gone(struct broker *b, struct helper *helper, int status, struct broker_end *end)
{
	helper->pid = 0;
	if (is_spare(helper->role) && !b->machine_exited)
		return;
	if (status && !end->helper_status) {
		end->helper = helper->role;
		end->helper_status = status;
	}
	if (helper->end_fd >= 0)
		close(helper->end_fd);
	helper->end_fd = -1;
}

static void take_end_of(struct broker *b, pid_t pid, int status)
{
	if (pid == b->machine && !b->adopted) {
		b->machine_exited = true;
		b->end->wait_status = status;
	}
	for (unsigned n = 0; n < b->helpers; n++)
		if (b->helper[n].pid == pid) {
			helper_gone(b, &b->helper[n], status, b->end);
			if (!b->machine_exited && !is_spare(b->helper[n].role) &&
			    (status || b->helper[n].role != ROLE_PAGER))
				broker_kill(b, BROKER_HELPER_ENDED);
		}
}

/*
 * Also of its forker, and of machines that were forked: those others look after. While one is
 * being forked it is not waited for: its number has to stay its own.
 */
void broker_take_ends(struct broker *b)
{
	pid_t pid = fork_is_making(&b->fork) ? b->machine : -1;
	int status;
	pid_t ended;

	while ((ended = waitpid(pid, &status, WNOHANG)) > 0)
		take_end_of(b, ended, status);
}

static void take_signal(struct broker *b)
{
	struct signalfd_siginfo info;

	if (read(b->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGTERM)
		ask_to_shut_down(b);
	else if (info.ssi_signo == SIGCHLD)
		broker_take_ends(b);
	else
		ask_to_stop(b);
}

/* Who holds nothing that could be lost does not hold up the end either. */
static unsigned ms_to_end(const struct broker *b, enum role role)
{
	return is_spare(role) && b->helper_ms > SPARE_HELPER_MS ? SPARE_HELPER_MS : b->helper_ms;
}

/* It ends in order; or is killed when its time is over. */
static void wait_for_helper(struct broker *b, unsigned number)
{
	const uint64_t until_ms = now_ms() + ms_to_end(b, b->helper[number].role);
	const int pidfd = HELPERS_FIRST_FD + (int)number;
	struct pollfd fds[] = { { .fd = pidfd, .events = POLLIN },
				{ .fd = b->errors.read_fd, .events = POLLIN } };

	for (uint64_t now = now_ms(); !fds[0].revents && now < until_ms; now = now_ms()) {
		if (poll(fds, 2, (int)(until_ms - now)) > 0 && fds[1].revents)
			errors_show(&b->errors);
		fds[1].fd = b->errors.read_fd;
	}
	if (!fds[0].revents)
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

void broker_end_helpers(struct broker *b, struct broker_end *end)
{
	for (unsigned n = b->helpers;
	     n-- > 0;) { /* the last first: an earlier one may serve a later one */
		pid_t pid = b->helper[n].pid;
		int status = 0;

		if (b->helper[n].end_fd >= 0)
			close(b->helper[n].end_fd); /* also of one that goes on in its place */
		b->helper[n].end_fd = -1;
		if (!pid)
			continue;
		wait_for_helper(b, n);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		helper_gone(b, &b->helper[n], status, end);
	}
	errors_show(&b->errors);
}

/* Of the signals by which a user stops it; -errno. */
static int open_stops(void)
{
	sigset_t stops;

	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGHUP);
	return signalfd(-1, &stops, SFD_CLOEXEC);
}

/* Of what peers ask then; what only a machine can answer it is told once it is there. */
static void hear_peers(struct broker *b, struct pollfd *polls)
{
	control_turn(&b->control, polls, broker_grant, b);
	control_events(&b->control, polls);
}

/* False: the user does not want to wait. */
static bool wait_until_ready(struct broker *b, int ready_fd)
{
	struct pollfd fds[3 + CONTROL_FDS] = { { .fd = ready_fd, .events = POLLIN },
					       { .fd = open_stops(), .events = POLLIN },
					       { .events = POLLIN } };

	control_events(&b->control, fds + 3);
	while (!fds[0].revents && !fds[1].revents && b->life.state == LIFE_STARTING) {
		fds[2].fd = b->errors.read_fd;
		if (poll(fds, 3 + CONTROL_FDS, control_has_line(&b->control) ? 0 : -1) < 0)
			continue;
		if (fds[2].revents)
			errors_show(&b->errors);
		hear_peers(b, fds + 3);
	}
	close(fds[1].fd);
	return !fds[1].revents && b->life.state == LIFE_STARTING;
}

bool broker_wait_helper(struct broker *b, int ready_fd, bool (*take)(int ready_fd, void *context),
			void *context, struct broker_end *end)
{
	bool is_wanted;

	assert(b->helpers);
	b->end = end;
	is_wanted = wait_until_ready(b, ready_fd);
	if (is_wanted && take(ready_fd, context))
		return true;
	end->outcome = is_wanted ? BROKER_HELPER_ENDED : BROKER_STOPPED;
	if (!is_wanted) /* it has not begun: the others end in order */
		syscall(SYS_pidfd_send_signal, HELPERS_FIRST_FD + (int)b->helpers - 1, SIGKILL,
			NULL, 0);
	return false;
}

/* ---- the loop ---- */

/* 0: never. */
static uint64_t sooner(uint64_t one_ms, uint64_t other_ms)
{
	return !one_ms || (other_ms && other_ms < one_ms) ? other_ms : one_ms;
}

static int wait_ms(const struct broker *b, bool more)
{
	uint64_t now = now_ms();
	uint64_t due;

	if (more || control_has_line(&b->control) || b->control.thaw_is_due)
		return 0;
	if (b->pending_used || b->unsaid || !may_take(b))
		return RING_FULL_MS;
	due = sooner(b->life.deadline_ms, tracer_due_ms(&b->tracer));
	due = sooner(due, sooner(b->door_until_ms, b->fork.until_ms));
	due = sooner(due, b->fork.settle_until_ms);
	due = sooner(due, b->answers_due_ms);
	due = sooner(due, b->fork.state == FORK_IDLE ? rejoin_due_ms(&b->rejoin) : 0);
	if (!due)
		return -1;
	return due > now ? (int)(due - now) : 0;
}

/* He may have been killed on his way: his guest is not to wait for ever. */
static void door_turn(struct broker *b)
{
	if (!b->door_until_ms || now_ms() < b->door_until_ms)
		return;
	b->door_until_ms = 0;
	broker_grant(b, control_door_is_late(&b->control));
}

static void broker_turn(struct broker *b, bool *more)
{
	struct pollfd fds[OWN_FDS + CONTROL_FDS] = {
		{ .fd = b->event_from, .events = POLLIN },
		{ .fd = b->signals, .events = POLLIN },
		{ .fd = b->pending_used < INPUT_BYTES ? b->input : -1, .events = POLLIN },
		{ .fd = fork_socket(&b->fork), .events = POLLIN },
		{ .fd = fork_pipe(&b->fork), .events = POLLIN },
		{ .fd = b->adopted ? grant_fd(GRANT_MACHINE) : -1, .events = POLLIN },
		{ .fd = fork_layers_socket(&b->fork), .events = POLLIN },
		{ .fd = b->errors.read_fd, .events = POLLIN },
		{ .fd = console_waits_for(&b->console), .events = POLLOUT },
	};
	uint64_t count;

	control_events(&b->control, fds + OWN_FDS);
	poll(fds, OWN_FDS + CONTROL_FDS, wait_ms(b, *more));
	if (fds[0].revents && read(b->event_from, &count, sizeof(count)) < 0 && errno != EAGAIN)
		broker_kill(b, BROKER_RUBBISH);
	if (fds[1].revents)
		take_signal(b);
	if (fds[2].revents)
		read_input(b);
	broker_fork_turn(b, fds[3].revents, fds[4].revents);
	if (fds[6].revents)
		broker_layers_heard(b);
	if (fds[5].revents)
		b->machine_exited = true;
	if (fds[7].revents)
		errors_show(&b->errors);
	console_push(&b->console);
	control_turn(&b->control, fds + OWN_FDS, broker_grant, b);
	*more = take_records(b);
	if (!tracer_turn(&b->tracer, &b->control, now_ms()))
		broker_kill(b, BROKER_RUBBISH);
	broker_save_turn(b);
	broker_fork_look_at_time(b, now_ms());
	b->answers_due_ms = control_look_at_time(&b->control, now_ms());
	door_turn(b);
	if (b->fork.state == FORK_IDLE && rejoin_turn(&b->rejoin, now_ms()))
		broker_say(b, SAY_REJOIN);
	say_all(b);
	life_turn(b);
}

void broker_serve(struct broker *b, struct broker_end *ret)
{
	bool more = false;

	b->end = ret;
	ret->outcome = BROKER_MACHINE_DIED;
	control_began(&b->control);
	while (!b->machine_exited)
		broker_turn(b, &more);
	/* Before the peers hear that the machine is gone: nothing of it holds anything then. */
	broker_end_helpers(b, ret);
	fork_hear_settled(&b->fork);
	fork_end(&b->fork);
	control_end(&b->control);
	while (take_records(b))
		; /* what it said before it ended: at most what the ring held */
	console_finish(&b->console);
	ret->unmapped = perf_map_missing(&b->perf_map);
	if (b->life.state < LIFE_ENDED)
		take_text(ret->text, (const uint8_t *)b->memory->last_words,
			  strnlen(b->memory->last_words, sizeof(b->memory->last_words)));
	life_move(&b->life, LIFE_GONE, now_ms());
	terminal_restore(&b->terminal);
}

/* ---- before and after ---- */

static int signals_take(struct broker *b)
{
	sigset_t taken;

	sigemptyset(&taken);
	sigaddset(&taken, SIGTERM);
	sigaddset(&taken, SIGINT);
	sigaddset(&taken, SIGHUP);
	sigaddset(&taken, SIGCHLD);
	sigprocmask(SIG_BLOCK, &taken, NULL);
	signal(SIGPIPE, SIG_IGN);
	b->signals = signalfd(-1, &taken, SFD_CLOEXEC);
	return b->signals < 0 ? -errno : 0;
}

int broker_errors_fd(const struct broker *b) { return b->errors.write_fd; }

int broker_make_rings(int ret[3])
{
	const off_t generation_at = offsetof(struct broker_memory, generation);
	uint8_t generation[sizeof(((struct broker_memory *)NULL)->generation)];
	int error;

	ret[0] = spawn_share("umbra-rings", sizeof(struct broker_memory));
	if (ret[0] < 0)
		return ret[0];
	if (getrandom(generation, sizeof(generation), 0) != sizeof(generation))
		return -EIO;
	error = write_all_at(ret[0], generation, sizeof(generation), generation_at);
	if (error)
		return error;
	ret[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret[2] = eventfd(0, EFD_CLOEXEC);
	return ret[1] < 0 || ret[2] < 0 ? -errno : 0;
}

static int rings_take(struct broker *b, const int fd[3])
{
	b->rings_fd = fd[0];
	b->event_from = fd[1];
	b->event_to = fd[2];
	b->memory =
		mmap(NULL, sizeof(*b->memory), PROT_READ | PROT_WRITE, MAP_SHARED, b->rings_fd, 0);
	if (b->memory == MAP_FAILED)
		return -errno;
	b->from_machine = (struct ring_end){ .memory = &b->memory->to_broker };
	b->to_machine =
		(struct ring_end){ .memory = &b->memory->to_machine, .wake_fd = b->event_to };
	return 0;
}

int broker_create(const struct broker_options *options, struct broker **ret)
{
	struct broker *b = calloc(1, sizeof(*b));
	int rings[3] = { options->rings_fd, options->event_from_fd, options->event_to_fd };
	int error = 0;

	if (!b)
		return -ENOMEM;
	b->input = options->input_fd;
	b->machine_exited = true;
	b->helper_ms = options->helper_ms ? options->helper_ms : BROKER_HELPER_MS;
	console_open(&b->console, options->console, options->console_fd,
		     options->console_limit_bytes);
	control_init(&b->control, options->control_fd, options->description);
	fork_init(&b->fork, &b->control, options->forks, options->has_disks);
	rejoin_init(&b->rejoin, -1);
	disk_work_init(&b->disks, &b->control);
	b->control.disk_places = options->disk_places;
	if (options->answer_ms)
		b->control.answer_ms = options->answer_ms;
	b->control.can_stand = options->forks;
	b->control.door_comes = options->door_comes;
	if (options->door_comes)
		b->door_until_ms = now_ms() + (options->door_ms ? options->door_ms
								: BROKER_DOOR_MS);
	b->control.can_fork = options->forks && !SANITIZED; /* which has no forker */
	b->control.kit_fds = fork_kit_fds(options->cards, options->ports);
	b->fork.step_ms = options->fork_step_ms ? options->fork_step_ms : FORK_STEP_MS;
	b->fork.cards = options->cards;
	b->fork.ports = options->ports;
	b->adopted = options->adopts;
	if (!options->adopts)
		error = broker_make_rings(rings);
	if (!error)
		error = rings_take(b, rings);
	if (!error)
		error = errors_make(&b->errors);
	if (!error)
		error = signals_take(b);
	if (error)
		free(b); /* and the process ends */
	else
		*ret = b;
	return error;
}

void broker_give(const struct broker *b, struct grants *grants)
{
	grants->fd[GRANT_RINGS] = b->rings_fd;
	grants->fd[GRANT_TO_BROKER] = b->event_from;
	grants->fd[GRANT_TO_MACHINE] = b->event_to;
}

int broker_set_machine(struct broker *b, const struct spawned *machine)
{
	assert(b->machine_exited && machine->pid > 0);
	b->machine = b->control.process = machine->pid;
	b->machine_exited = false;
	return dup2(machine->pidfd, grant_fd(GRANT_MACHINE)) < 0 ? -errno : 0;
}

int broker_watch_pager(struct broker *b, int memory_fd)
{
	const struct pager_left *left =
		mmap(NULL, PAGER_LEFT_MEMORY_BYTES, PROT_READ, MAP_SHARED, memory_fd, 0);

	assert(!b->control.remote_bytes);
	if (left == MAP_FAILED)
		return -errno;
	b->control.remote_bytes = &left->bytes;
	b->control.remote_disk_bytes = &left->disk_bytes;
	return 0;
}

void broker_adopt_machine(struct broker *b, pid_t machine)
{
	assert(b->machine_exited && b->adopted);
	b->control.process = machine;
	b->machine_exited = false;
}

/* A file of /proc about a process is about the program that it executes at that moment. */
static void wait_for_program(pid_t pid)
{
	enum { TRIES = 500, PAUSE_NS = 1000000 };
	const struct timespec pause = { 0, PAUSE_NS };
	char path[64];
	char text[256] = "";

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	for (unsigned n = 0; n < TRIES; n++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

		if (fd >= 0)
			close(fd);
		if (got > 0 && memmem(text, (size_t)got, "machine", strlen("machine")))
			return;
		nanosleep(&pause, NULL);
	}
}

/* It has small pages where a fork has split large ones, as it had before, where there is none. */
static void open_pagemap(struct broker *b)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", b->control.process);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && dup3(fd, grant_fd(GRANT_PAGEMAP), O_CLOEXEC) >= 0)
		rejoin_init(&b->rejoin, grant_fd(GRANT_PAGEMAP));
	if (fd >= 0)
		close(fd);
}

void broker_open_occupied(struct broker *b)
{
	static const char *const names[CONTROL_OCCUPIED_FDS] = { "statm", "smaps_rollup" };
	char path[64];

	if (!b->adopted)
		wait_for_program(b->control.process);
	for (unsigned n = 0; n < CONTROL_OCCUPIED_FDS; n++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", b->control.process,
			 names[n]);
		b->control.occupied_fd[n] = open(path, O_RDONLY | O_CLOEXEC);
		if (b->control.occupied_fd[n] < 0) /* both or none */
			b->control.occupied_fd[0] = -1;
	}
	open_pagemap(b);
}

int broker_open_perf_map(struct broker *b)
{
	return perf_map_open(&b->perf_map, b->control.process);
}

int broker_add_helper(struct broker *b, enum role role, const struct spawned *helper, int end_fd)
{
	if (b->helpers == HELPERS_MOST)
		return -ENOSPC;
	if (dup3(helper->pidfd, HELPERS_FIRST_FD + (int)b->helpers, O_CLOEXEC) < 0)
		return -errno;
	b->helper[b->helpers++] =
		(struct helper){ .role = role, .pid = helper->pid, .end_fd = end_fd };
	return 0;
}

void broker_destroy(struct broker *b)
{
	for (unsigned n = 0; n < b->helpers; n++)
		assert(!b->helper[n].pid);
	control_end(&b->control); /* of one that has served no machine */
	rejoin_end(&b->rejoin);
	munmap(b->memory, sizeof(*b->memory));
	free(b);
}
