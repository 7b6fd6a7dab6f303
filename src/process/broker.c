/*
 * One thread, one poll. Input that the machine does not take stays in `pending`; output goes to the terminal before more is
 * taken from the ring, so that a flooding guest waits for the terminal, and signals are looked at between two records.
 */
#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/machine_control.h"
#include "ipc/lockdown.h"

enum { INPUT_BYTES = 512, STOP_GRACE_MS = 500, SHUT_DOWN_GRACE_MS = 30000, RECORDS_PER_TURN = 16, OWN_FDS = 3 };

struct broker {
	const struct broker_options *options;
	struct broker_end *end;
	struct broker_memory *memory;
	struct ring_end from_machine, to_machine;
	int event_from, event_to, signals, input;
	pid_t machine, helper; /* helper 0: none, or gone */
	int helper_end;
	uint8_t pending[INPUT_BYTES];
	size_t pending_used;
	uint64_t stop_at_ms; /* 0: its guest was not asked to power off */
	uint64_t kill_at_ms; /* 0: not asked to stop */
	struct control control;
	bool gone, answered, stop_sent, save_wanted, resume_wanted, shut_down_wanted, shutting_down, memory_wanted;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void give_up(struct broker *b, enum broker_outcome outcome)
{
	kill(b->machine, SIGKILL);
	if (!b->answered)
		b->end->outcome = outcome;
	b->answered = true;
}

static void ask_to_stop(struct broker *b)
{
	if (!b->kill_at_ms)
		b->kill_at_ms = now_ms() + STOP_GRACE_MS;
}

/* Politely once: the guest may have something to write. Who asks again does not want to wait. */
static void ask_to_shut_down(struct broker *b)
{
	if (b->stop_at_ms || b->kill_at_ms) {
		ask_to_stop(b);
		return;
	}
	b->shut_down_wanted = true;
	b->stop_at_ms = now_ms() + STOP_GRACE_MS; /* until it says that its guest was asked */
}

static void grant(struct broker *b, enum control_wish wish)
{
	switch (wish) {
	case WISH_STOP: ask_to_shut_down(b); break;
	case WISH_KILL: give_up(b, BROKER_STOPPED); break;
	case WISH_SAVE: b->save_wanted = true; break;
	case WISH_RESUME: b->resume_wanted = true; break;
	case WISH_MEMORY: b->memory_wanted = true; break;
	default: break;
	}
}

/* ---- what the machine says ---------------------------------------------------------------------------------------------------- */

/* Bytes of the machine as text for a terminal: bounded, NUL-terminated, nothing but printable ASCII and line ends. */
static void take_text(char *to, const uint8_t *from, uint32_t bytes)
{
	for (uint32_t n = 0; n < bytes; n++)
		to[n] = from[n] == '\n' || (from[n] >= ' ' && from[n] < 0x7f) ? (char)from[n] : '.';
	to[bytes] = 0;
}

static bool take_end(struct broker *b, enum broker_outcome outcome, const uint8_t *data, uint32_t bytes)
{
	uint32_t fixed = outcome == BROKER_ENDED ? 8 : 4;

	if (bytes < fixed || b->answered)
		return false;
	b->answered = true;
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
	grant(b, wish);
	return true;
}

static bool take_shutting_down(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	int32_t asked;

	if (bytes != sizeof(asked) || !b->stop_at_ms || b->shutting_down)
		return false;
	b->shutting_down = true; /* once: who is asked again and again would never be stopped */
	memcpy(&asked, data, sizeof(asked));
	if (asked)
		b->stop_at_ms = now_ms() + SHUT_DOWN_GRACE_MS;
	else
		ask_to_stop(b);
	return true;
}

/* Numbers, of whatever size: they are shown to who asks, and nothing depends on them. */
static bool take_state(struct broker *b, const uint8_t *data, uint32_t bytes)
{
	struct record_state s;
	char text[CONTROL_STATE_BYTES];

	if (bytes != sizeof(s))
		return false;
	memcpy(&s, data, sizeof(s));
	snprintf(text, sizeof(text), "\"guest\":\"%s\",\"memory-mode\":\"%s\",\"assigned\":%lu,\"target\":%lu",
		 s.flags & STATE_ANSWERS ? "answers" : s.flags & STATE_SILENT ? "silent" : "unknown",
		 !(s.flags & STATE_MEMORY_DRIVER) ? "no driver" : s.flags & STATE_AUTOMATIC ? "automatic" : "set", s.assigned_bytes, s.target_bytes);
	if (s.flags & STATE_MEMORY_STATUS)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), ",\"available\":%lu,\"committed\":%lu", s.available_bytes, s.committed_bytes);
	control_set_state(&b->control, text);
	return true;
}

static bool take_record(struct broker *b, uint32_t kind, const uint8_t *data, uint32_t bytes)
{
	switch (kind) {
	case RECORD_CONSOLE: b->options->console(b->options->context, data, bytes); return true;
	case RECORD_STARTED: b->options->started(b->options->context); return true;
	case RECORD_REFUSED: return take_end(b, BROKER_REFUSED, data, bytes);
	case RECORD_ENDED: return take_end(b, BROKER_ENDED, data, bytes);
	case RECORD_SAVED: return control_saved(&b->control, data, bytes);
	case RECORD_SAVE_ENDED: return take_save_end(b, data, bytes);
	case RECORD_STATE: return take_state(b, data, bytes);
	case RECORD_SHUTTING_DOWN: return take_shutting_down(b, data, bytes);
	case RECORD_STATISTICS: take_text(b->end->statistics, data, bytes); return true;
	default: return false;
	}
}

/* True: there may be more. */
static bool take_records(struct broker *b)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind, bytes;

	for (int n = 0; n < RECORDS_PER_TURN; n++) {
		int got = control_is_full(&b->control) ? 0 : ring_get(&b->from_machine, &kind, data, &bytes);

		if (!got)
			return false;
		if (got < 0 || !take_record(b, kind, data, bytes)) {
			give_up(b, BROKER_RUBBISH);
			return false;
		}
	}
	return true;
}

/* ---- what it is told ------------------------------------------------------------------------------------------------------------ */

static void send(struct broker *b)
{
	if (b->kill_at_ms && !b->stop_sent)
		b->stop_sent = !ring_put(&b->to_machine, RECORD_STOP, NULL, 0);
	if (b->save_wanted)
		b->save_wanted = ring_put(&b->to_machine, RECORD_SAVE, NULL, 0);
	if (b->shut_down_wanted)
		b->shut_down_wanted = ring_put(&b->to_machine, RECORD_SHUT_DOWN, NULL, 0);
	if (b->memory_wanted)
		b->memory_wanted = ring_put(&b->to_machine, RECORD_MEMORY, &b->control.memory_bytes, sizeof(b->control.memory_bytes));
	if (b->resume_wanted)
		b->resume_wanted = ring_put(&b->to_machine, RECORD_RESUME, NULL, 0);
	if (b->pending_used && !ring_put(&b->to_machine, RECORD_INPUT, b->pending, (uint32_t)b->pending_used))
		b->pending_used = 0;
}

static void read_input(struct broker *b)
{
	uint8_t bytes[INPUT_BYTES];
	ssize_t n = read(b->input, bytes, INPUT_BYTES - b->pending_used);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		b->input = -1;
	for (ssize_t k = 0; k < n; k++) {
		bool stop = false;

		if (!b->options->key(b->options->context, bytes[k], &stop))
			b->pending[b->pending_used++] = bytes[k];
		if (stop)
			ask_to_stop(b);
	}
}

static void take_signal(struct broker *b)
{
	struct signalfd_siginfo info;

	if (read(b->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGTERM)
		ask_to_shut_down(b);
	else if (info.ssi_signo != SIGCHLD)
		ask_to_stop(b);
	if (info.ssi_signo != SIGCHLD)
		return;
	b->gone |= waitpid(b->machine, &b->end->wait_status, WNOHANG) == b->machine;
	if (b->helper && waitpid(b->helper, &b->end->helper_status, WNOHANG) == b->helper) {
		b->helper = 0;
		give_up(b, BROKER_HELPER_ENDED);
	}
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------- */

static void grant_any(void *context, enum control_wish wish) { grant(context, wish); }

static void end_helper(struct broker *b)
{
	if (!b->helper)
		return;
	close(b->helper_end);
	while (waitpid(b->helper, &b->end->helper_status, 0) < 0 && errno == EINTR)
		;
}

static void serve(struct broker *b)
{
	bool more = false;

	while (!b->gone) {
		bool room = b->pending_used < INPUT_BYTES;
		struct pollfd fds[OWN_FDS + CONTROL_FDS] = { { .fd = b->event_from, .events = POLLIN }, { .fd = b->signals, .events = POLLIN },
							     { .fd = room ? b->input : -1, .events = POLLIN } };
		bool waits = b->pending_used || b->stop_at_ms || b->kill_at_ms || b->save_wanted || b->resume_wanted || b->memory_wanted;
		uint64_t count;

		control_events(&b->control, fds + OWN_FDS);
		poll(fds, OWN_FDS + CONTROL_FDS, more || control_has_line(&b->control) ? 0 : waits ? 20 : -1);
		if (fds[0].revents && read(b->event_from, &count, 8) < 0 && errno != EAGAIN)
			return;
		if (fds[1].revents)
			take_signal(b);
		if (fds[2].revents)
			read_input(b);
		control_turn(&b->control, fds + OWN_FDS, grant_any, b);
		more = take_records(b);
		send(b);
		if (b->stop_at_ms && now_ms() >= b->stop_at_ms)
			ask_to_stop(b);
		if (b->kill_at_ms && now_ms() >= b->kill_at_ms)
			give_up(b, BROKER_STOPPED);
	}
	end_helper(b); /* before the peers hear that the machine is gone: nothing of it holds anything then */
	control_end(&b->control);
	while (take_records(b))
		; /* what it said before it ended: at most what the ring held */
}

static void forget_signals(struct broker *b)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* the terminal's keys are the broker's, and so is the wish of who stops a whole group of processes */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	close(b->signals);
}

static int run_helper(struct broker *b, const struct broker_helper *h, int end)
{
	close(end);
	forget_signals(b);
	return b->options->helper(h, b->options->context);
}

/* 0: there is none, or it is ready; -ECHILD: it has ended, as ret_end says. */
static int start_helper(struct broker *b)
{
	int ready[2], end[2];
	char byte;

	if (!b->options->helper)
		return 0;
	if (pipe2(ready, O_CLOEXEC) || pipe2(end, O_CLOEXEC))
		return -errno;
	b->helper = fork();
	if (b->helper < 0)
		return -errno;
	if (!b->helper) {
		close(ready[0]);
		_exit(run_helper(b, &(struct broker_helper){ ready[1], end[0] }, end[1]));
	}
	close(ready[1]);
	close(end[0]);
	b->helper_end = end[1];
	if (read(ready[0], &byte, 1) == 1) {
		close(ready[0]);
		return 0;
	}
	waitpid(b->helper, &b->end->helper_status, 0);
	b->end->outcome = BROKER_HELPER_ENDED;
	return -ECHILD;
}

static int run_machine(struct broker *b)
{
	struct broker_client client = {
		.memory = b->memory,
		.to_broker = { .memory = &b->memory->to_broker, .wake_fd = b->event_from },
		.from_broker = { .memory = &b->memory->to_machine },
		.event_in = b->event_to,
		.event_out = b->event_from,
	};

	forget_signals(b);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return b->options->machine(&client, b->options->context);
}

static int prepare(struct broker *b)
{
	sigset_t taken;

	b->memory = mmap(NULL, sizeof(*b->memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->memory == MAP_FAILED)
		return -errno;
	sigemptyset(&taken);
	sigaddset(&taken, SIGTERM);
	sigaddset(&taken, SIGINT);
	sigaddset(&taken, SIGHUP);
	sigaddset(&taken, SIGCHLD);
	sigprocmask(SIG_BLOCK, &taken, NULL);
	b->signals = signalfd(-1, &taken, SFD_CLOEXEC);
	b->event_from = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->event_to = eventfd(0, EFD_CLOEXEC);
	if (b->signals < 0 || b->event_from < 0 || b->event_to < 0)
		return -errno;
	b->from_machine.memory = &b->memory->to_broker;
	b->to_machine = (struct ring_end){ .memory = &b->memory->to_machine, .wake_fd = b->event_to };
	return 0;
}

int broker_run(const struct broker_options *options, struct broker_end *ret_end)
{
	struct broker b = { .options = options, .end = ret_end, .input = options->input_fd };
	int error = prepare(&b);

	memset(ret_end, 0, sizeof(*ret_end));
	control_init(&b.control, options->control_fd, options->description);
	ret_end->outcome = BROKER_MACHINE_DIED;
	if (!error)
		error = start_helper(&b);
	if (error)
		return error == -ECHILD ? 0 : error;
	b.machine = fork();
	if (b.machine < 0)
		return -errno;
	if (!b.machine)
		_exit(run_machine(&b));
	error = lockdown_before_threads(LOCKDOWN_BROKER, NULL);
	if (!error)
		error = lockdown(LOCKDOWN_BROKER, NULL, NULL);
	if (error) {
		kill(b.machine, SIGKILL);
		return error;
	}
	serve(&b);
	if (!b.answered)
		take_text(ret_end->text, (const uint8_t *)b.memory->last_words, strnlen(b.memory->last_words, sizeof(b.memory->last_words)));
	munmap(b.memory, sizeof(*b.memory));
	return 0;
}
