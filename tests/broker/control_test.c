/*
 * The broker's control socket: peers that ask properly, ask nonsense, hang up, or do not read; and
 * machine processes that say what nobody asked for. The machine here answers a save with RECORDS
 * records, and a console line for everything that it is told.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "control/machine_control.h"

enum { RECORDS = 200, RECORD_BYTES = 5000, TEXT_BYTES = 256, SAID_WAIT_MS = 60000 };

static int failures;
static struct sockaddr_un address;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !good;
}

/* ---- machines ---- */

static void put(struct client *client, uint32_t kind, const void *data, uint32_t bytes)
{
	while (ring_put(&client->to_broker, kind, data, bytes) == -EAGAIN)
		ring_wait(&client->to_broker);
}

static void say(struct client *client, const char *text)
{
	put(client, RECORD_CONSOLE, text, (uint32_t)strlen(text));
}

static void be_saved(struct client *client, int error)
{
	static uint8_t data[RECORD_BYTES];
	int32_t end = error;

	say(client, "save ");
	for (unsigned n = 0; n < RECORDS; n++) {
		memset(data, (int)n, sizeof(data));
		put(client, RECORD_SAVED, data, sizeof(data));
	}
	put(client, RECORD_SAVE_ENDED, &end, sizeof(end));
}

/* What it was told, and a state that answers. */
static void say_memory(struct client *client, const uint8_t *data, uint32_t bytes)
{
	struct record_state state = { .flags = STATE_ANSWERS | STATE_MEMORY_DRIVER |
					       STATE_MEMORY_STATUS,
				      .assigned_bytes = UINT64_MAX,
				      .target_bytes = 2,
				      .available_bytes = 3,
				      .committed_bytes = 4 };
	char text[32] = "not a number ";

	if (bytes == sizeof(state.target_bytes)) {
		memcpy(&state.target_bytes, data, sizeof(state.target_bytes));
		snprintf(text, sizeof(text), "memory %lu ", state.target_bytes);
	}
	put(client, RECORD_STATE, &state, sizeof(state));
	say(client, text);
}

static void say_advice(struct client *client, const uint8_t *data, uint32_t bytes)
{
	uint64_t advised = 0;
	char text[32];

	memcpy(&advised, data, bytes == sizeof(advised) ? bytes : 0);
	snprintf(text, sizeof(text), "advise %lu ", advised);
	say(client, text);
}

static void say_registers(struct client *client)
{
	const struct record_registers registers[2] = {
		{ .rip = UINT64_MAX, .gpr[15] = 0xf, .state = REGISTERS_HALTED },
		{ .rip = 0x1234, .state = 99, .fault_vector = 14 },
	};

	put(client, RECORD_REGISTERS, registers, sizeof(registers));
}

static int serve(struct client *client, int error)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	const int32_t ended[2] = { 1, 0 };
	uint32_t kind, bytes;
	uint64_t count;

	while (read(client->event_in, &count, 8) == 8)
		while (ring_get(&client->from_broker, &kind, data, &bytes) > 0)
			switch (kind) {
			case RECORD_SAVE: be_saved(client, error); break;
			case RECORD_RESUME: say(client, "resume "); break;
			case RECORD_MEMORY: say_memory(client, data, bytes); break;
			case RECORD_ADVICE: say_advice(client, data, bytes); break;
			case RECORD_LOOK: say_registers(client); break;
			case RECORD_STOP: put(client, RECORD_ENDED, ended, sizeof(ended)); return 0;
			default: break;
			}
	return 1;
}

static int good_machine(struct client *client) { return serve(client, 0); }
static int machine_that_cannot(struct client *client) { return serve(client, -ECANCELED); }
static int deaf_machine(struct client *client) { (void)client; pause(); return 0; }

static void say_fork_ended(struct client *client, const uint8_t *data, uint32_t bytes)
{
	struct record_fork_ended ended = { .error = 1 };
	char text[48];

	memcpy(&ended, data, bytes == sizeof(ended) ? bytes : 0);
	snprintf(text, sizeof(text), "ended %d %u ", ended.error, ended.child);
	say(client, text);
}

/* The broker wakes up for both. */
static void want_and_drop(struct client *client)
{
	const uint32_t wants[2] = { 1, 0 };
	const int wake_fd = client->to_broker.wake_fd;
	const int nobody = eventfd(0, EFD_CLOEXEC);

	client->to_broker.wake_fd = nobody;
	put(client, RECORD_WANT_FORK, &wants[0], sizeof(wants[0]));
	client->to_broker.wake_fd = wake_fd;
	put(client, RECORD_WANT_FORK, &wants[1], sizeof(wants[1]));
	close(nobody);
}

/* Wants to be forked when it is told 1 as its memory, no longer when 2, and both when 3. */
static int machine_that_wishes(struct client *client)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	const int32_t ended[2] = { 1, 0 };
	uint32_t kind, bytes, wanted;
	uint64_t count;

	while (read(client->event_in, &count, 8) == 8)
		while (ring_get(&client->from_broker, &kind, data, &bytes) > 0)
			switch (kind) {
			case RECORD_MEMORY:
				wanted = data[0] == 1;
				if (data[0] == 3)
					want_and_drop(client);
				else
					put(client, RECORD_WANT_FORK, &wanted, sizeof(wanted));
				break;
			case RECORD_FORK_ENDED: say_fork_ended(client, data, bytes); break;
			case RECORD_STOP: put(client, RECORD_ENDED, ended, sizeof(ended)); return 0;
			default: break;
			}
	return 1;
}

static int wishes_half(struct client *client)
{
	put(client, RECORD_WANT_FORK, "x", 1);
	pause();
	return 0;
}

static int wishes_what_is_none(struct client *client)
{
	put(client, RECORD_WANT_FORK, "\2\0\0\0", 4);
	pause();
	return 0;
}

static int unasked_data(struct client *client)
{
	put(client, RECORD_SAVED, "x", 1);
	pause();
	return 0;
}
static int unasked_end(struct client *client)
{
	put(client, RECORD_SAVE_ENDED, "\0\0\0\0", 4);
	pause();
	return 0;
}

static int short_end(struct client *client)
{
	uint64_t count;

	if (read(client->event_in, &count, 8) == 8)
		put(client, RECORD_SAVE_ENDED, "x", 1);
	pause();
	return 0;
}

static int unasked_registers(struct client *client)
{
	say_registers(client);
	pause();
	return 0;
}

static int half_registers(struct client *client)
{
	uint64_t count;

	if (read(client->event_in, &count, 8) == 8)
		put(client, RECORD_REGISTERS, "half", 4);
	pause();
	return 0;
}

static int dies_in_a_save(struct client *client)
{
	uint64_t count;

	if (read(client->event_in, &count, 8) == 8)
		for (unsigned n = 0; n < 3; n++)
			put(client, RECORD_SAVED, "xyz", 3);
	return raise(SIGSEGV);
}

/* ---- machines that are traced ---- */

enum { TRACED = 3000 /* records, for each of two kinds */ };

/* What it is told to trace; 0: nothing any more. */
static uint32_t told_trace(struct client *client)
{
	static uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t wanted = 0;
	uint32_t kind = 0;
	uint32_t bytes = 0;
	uint64_t count;

	while (kind != RECORD_TRACE && read(client->event_in, &count, 8) == 8)
		ring_get(&client->from_broker, &kind, data, &bytes);
	memcpy(&wanted, data, bytes == sizeof(wanted) ? bytes : 0);
	return wanted;
}

/* Also what nobody has asked for. */
static int is_traced(struct client *client)
{
	struct trace trace;

	trace_init(&trace, &client->memory->trace);
	trace_want(&trace, told_trace(client));
	say(client, trace_wants(&trace, TRACE_HALT) ? "too much " : "begins ");
	for (uint64_t n = 0; n < TRACED; n++) {
		trace_put(&trace, &(struct trace_record){ .ns = n, .kind = TRACE_HALT });
		trace_put(&trace, &(struct trace_record){ .ns = n, .kind = TRACE_CPUID,
							  .word = { n, ~n } });
	}
	say(client, told_trace(client) ? "goes on " : "is over ");
	return serve(client, 0);
}

static int lies_with(struct client *client, const struct trace_record *record, uint32_t head)
{
	struct trace_memory *memory = &client->memory->trace;

	told_trace(client);
	if (record)
		memory->record[memory->head % TRACE_RECORDS] = *record;
	memory->head += head;
	return pause();
}

static int trace_head(struct client *client) { return lies_with(client, NULL, TRACE_RECORDS + 1); }
static int trace_of_no_kind(struct client *client)
{
	return lies_with(client, &(struct trace_record){ .kind = TRACE_KINDS }, 1);
}
static int trace_of_kind_zero(struct client *client)
{
	return lies_with(client, &(struct trace_record){ .kind = 0 }, 1);
}
static int trace_of_no_processor(struct client *client)
{
	return lies_with(client, &(struct trace_record){ .kind = TRACE_CPUID,
							 .processor = REGISTERS_MOST }, 1);
}

/* ---- a broker in a process of its own ---- */

struct running { pid_t pid; int report, console; };

static struct running start_with(int (*machine)(struct client *),
				 int (*helper)(const struct helper_ends *))
{
	int pipes[2], listener;
	struct running running;

	unlink(address.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 4) || pipe(pipes))
		exit(2);
	running.console = memfd_create("console", 0);
	running.pid = fork();
	running.report = pipes[0];
	if (!running.pid) {
		struct harness harness = { .machine = machine,
					   .helper = helper,
					   .console_fd = running.console,
					   .control_fd = listener,
					   .description = "{\"is\":\"what it is\"}" };
		static struct broker_end end;
		char text[TEXT_BYTES + 32];
		char said[TEXT_BYTES] = "";
		int n;

		signal(SIGPIPE, SIG_IGN);
		close(pipes[0]);
		if (harness_run(&harness, &end))
			_exit(99);
		n = (int)pread(grant_fd(GRANT_CONSOLE), said, sizeof(said) - 1, 0);
		n = snprintf(text, sizeof(text), "%d %s", (int)end.outcome, said);
		_exit(write(pipes[1], text, (size_t)n) == n ? 0 : 98);
	}
	close(pipes[1]);
	close(listener);
	return running;
}

static struct running start(int (*machine)(struct client *)) { return start_with(machine, NULL); }

/* The machine has come so far; not whether it says more. */
static bool has_said(struct running running, const char *want)
{
	char said[TEXT_BYTES] = "";

	for (unsigned n = 0; n < SAID_WAIT_MS && strcmp(said, want); n++) {
		usleep(1000);
		if (pread(running.console, said, sizeof(said) - 1, 0) < 0)
			return false;
	}
	return !strcmp(said, want);
}

/* Its outcome and what the machine said, to be equal to `want`. */
static void finish(const char *what, struct running running, enum broker_outcome outcome,
		   const char *want)
{
	struct pollfd ready = { .fd = running.report, .events = POLLIN };
	char text[TEXT_BYTES + 32] = "";
	char wanted[TEXT_BYTES + 32];
	ssize_t n = poll(&ready, 1, 20000) > 0 ? read(running.report, text, sizeof(text) - 1) : 0;

	if (n <= 0)
		kill(running.pid, SIGKILL);
	waitpid(running.pid, NULL, 0);
	close(running.report);
	close(running.console);
	snprintf(wanted, sizeof(wanted), "%d %s", (int)outcome, want);
	if (strcmp(text, wanted))
		printf("     '%s', not '%s'\n", text, wanted);
	expect(what, !strcmp(text, wanted));
}

/* ---- peers ---- */

static FILE *connect_to(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	return fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address))
		       ? fdopen(fd, "r+")
		       : NULL;
}

/* "save" and "memory 5" as lines of the protocol; what begins with '{' is sent as it is. */
static void ask(FILE *peer, const char *question)
{
	char verb[32] = "";
	unsigned long bytes;

	if (question[0] == '{' || question[0] == '\n')
		fputs(question, peer);
	else if (sscanf(question, "memory %lu", &bytes) == 1)
		fprintf(peer, "{\"id\":\"x\",\"do\":\"memory\",\"bytes\":%lu}\n", bytes);
	else if (sscanf(question, "%31s", verb) == 1)
		fprintf(peer, "{\"id\":7,\"do\":\"%s\"}\n", verb);
	fflush(peer);
}

/*
 * A line of the protocol in short: "ok", "ok" and what the machine is, "error" and the number,
 * "data" and the number.
 */
static bool hear(FILE *peer, char said[TEXT_BYTES])
{
	char line[1024];
	json_t *answer = fgets(line, sizeof(line), peer)
				 ? json_loads(line, JSON_REJECT_DUPLICATES, NULL)
				 : NULL;
	json_t *machine = json_object_get(answer, "machine");
	bool good = json_is_object(answer) && json_object_get(answer, "id");

	if (!json_object_get(answer, "ok"))
		snprintf(said, TEXT_BYTES, "data %lld",
			 (long long)json_integer_value(json_object_get(answer, "data")));
	else if (!json_is_true(json_object_get(answer, "ok")))
		snprintf(said, TEXT_BYTES, "error -%lld",
			 (long long)json_integer_value(json_object_get(answer, "errno")));
	else
		snprintf(said, TEXT_BYTES, "ok%s%s", machine ? " " : "",
			 machine ? json_string_value(json_object_get(machine, "is")) : "");
	good &= json_is_true(json_object_get(answer, "ok")) || json_object_get(answer, "data") ||
		json_object_get(answer, "reason");
	json_decref(answer);
	return good;
}

static bool answers(FILE *peer, const char *question, const char *want)
{
	char said[TEXT_BYTES];

	ask(peer, question);
	return hear(peer, said) && !strcmp(said, want);
}

/* The first line of an answer that may have to wait for the end of another's save. */
static bool begin_save(FILE *peer, char line[TEXT_BYTES])
{
	for (int n = 0; n < 5000; n++) {
		ask(peer, "save");
		if (!hear(peer, line) || strcmp(line, "error -16"))
			return true;
		usleep(1000);
	}
	return false;
}

static bool takes_save(FILE *peer, const char *end)
{
	static uint8_t data[RECORD_BYTES];
	char line[TEXT_BYTES] = "";
	bool good = begin_save(peer, line);

	for (unsigned n = 0; good && n < RECORDS; n++) {
		good = (!n || hear(peer, line)) && !strcmp(line, "data 5000") &&
		       fread(data, 1, sizeof(data), peer) == sizeof(data);
		for (unsigned k = 0; k < sizeof(data); k++)
			good &= data[k] == (uint8_t)n;
	}
	return good && hear(peer, line) && !strcmp(line, end);
}

static void stop(void)
{
	FILE *peer = connect_to();

	expect("stop", answers(peer, "stop", "ok"));
	fclose(peer);
}

static void proper(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();

	expect("info", answers(peer, "info", "ok what it is"));
	expect("a save", takes_save(peer, "ok"));
	expect("another before it goes on", answers(peer, "save", "error -16"));
	expect("it goes on", answers(peer, "resume", "ok"));
	expect("a second save", takes_save(peer, "ok"));
	expect("stop in it", answers(peer, "stop", "ok"));
	finish("a machine that is saved twice and stopped", running, BROKER_ENDED,
	       "save resume save ");
	expect("the connection has ended", fgetc(peer) == EOF);
	fclose(peer);
	running = start(machine_that_cannot);
	peer = connect_to();
	expect("a save that fails", takes_save(peer, "error -125"));
	expect("there is nothing to go on", answers(peer, "resume", "error -114"));
	expect("nor a file that a piece is of",
	       answers(peer, "{\"do\":\"piece\",\"data\":\"AAAA\"}\n", "error -9"));
	expect("nor one to finish", answers(peer, "finish", "error -9"));
	expect("stop", answers(peer, "stop", "ok"));
	fclose(peer);
	finish("a machine that cannot be saved", running, BROKER_ENDED, "save ");
}

/* Numbers of the machine are shown as they are, and no larger than JSON takes them. */
static bool has_state(FILE *peer)
{
	char line[1024];
	json_t *answer = NULL;
	json_t *machine;
	bool good;

	ask(peer, "info");
	if (fgets(line, sizeof(line), peer))
		answer = json_loads(line, 0, NULL);
	machine = json_object_get(answer, "machine");
	good = json_integer_value(json_object_get(machine, "assigned")) == INT64_MAX &&
	       json_is_integer(json_object_get(machine, "target")) &&
	       json_integer_value(json_object_get(machine, "committed")) == 4 &&
	       json_string_value(json_object_get(machine, "guest"));
	json_decref(answer);
	return good;
}

static void memory(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();
	bool there = false;

	expect("memory",
	       answers(peer, "memory 123456789", "ok") && answers(peer, "memory 0", "ok"));
	for (int n = 0; n < 500 && !there; n++, usleep(1000))
		there = has_state(peer);
	expect("info has what the machine says of its memory", there);
	fclose(peer);
	stop();
	finish("a machine that is told how much memory to have", running, BROKER_ENDED,
	       "memory 123456789 memory 0 ");
}

/* What is said comes again; what a peer has advised goes with it. */
static void watched(void)
{
	struct running running = start(good_machine);
	FILE *watcher = connect_to();
	FILE *peer = connect_to();
	char line[CONTROL_REQUEST_BYTES];

	ask(watcher, "watch");
	expect("watch", fgets(line, sizeof(line), watcher) && strstr(line, "\"machine\""));
	expect("advise", answers(peer, "{\"id\":1,\"do\":\"advise\",\"bytes\":77}\n", "ok"));
	expect("memory, which the machine answers", answers(peer, "memory 5", "ok"));
	expect("a watcher hears of it unasked", fgets(line, sizeof(line), watcher) &&
							strstr(line, "\"assigned\""));
	fclose(peer);
	expect("its advice goes with it", has_said(running, "advise 77 memory 5 advise 0 "));
	peer = connect_to();
	ask(peer, "info");
	expect("another one is heard", fgets(line, sizeof(line), peer));
	fclose(peer);
	fclose(watcher);
	stop();
	finish("a machine that is advised, and then is not", running, BROKER_ENDED,
	       "advise 77 memory 5 advise 0 ");
}

/* Whoever holds a machine and has advised it is both no more when it is gone. */
static void advised_and_held(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();

	expect("advise", answers(peer, "{\"id\":1,\"do\":\"advise\",\"bytes\":77}\n", "ok"));
	expect("a save", takes_save(peer, "ok"));
	fclose(peer);
	expect("it goes on, without advice",
	       has_said(running, "advise 77 save advise 0 resume "));
	peer = connect_to();
	expect("another can save it", takes_save(peer, "ok"));
	fclose(peer);
	stop();
	finish("a machine that is advised and held by one", running, BROKER_ENDED,
	       "advise 77 save advise 0 resume save resume ");
}

/* Who was narrowed advises and hears, and nothing else, whatever he asks. */
static void narrowed(void)
{
	static const char *const refused[] = { "stop", "kill", "save", "resume", "registers", "kit",
					       "fork", "memory 5",
					       "{\"id\":3,\"do\":\"layer\",\"disk\":0,"
					       "\"file\":\"/x\"}\n" };
	struct running narrow = start(good_machine);
	FILE *peer = connect_to();
	char line[CONTROL_REQUEST_BYTES];

	expect("narrow", answers(peer, "narrow", "ok"));
	for (unsigned n = 0; n < sizeof(refused) / sizeof(refused[0]); n++)
		expect(refused[n], answers(peer, refused[n], "error -1"));
	expect("it advises", answers(peer, "{\"id\":4,\"do\":\"advise\",\"bytes\":77}\n", "ok"));
	ask(peer, "watch");
	expect("it hears", fgets(line, sizeof(line), peer) && strstr(line, "\"machine\""));
	expect("it stays narrow",
	       answers(peer, "narrow", "ok") && answers(peer, "kill", "error -1"));
	fclose(peer);
	expect("its advice goes with it", has_said(narrow, "advise 77 advise 0 "));
	peer = connect_to();
	ask(peer, "info");
	expect("the next one is heard", fgets(line, sizeof(line), peer));
	fclose(peer);
	stop();
	finish("a machine with a narrow peer", narrow, BROKER_ENDED, "advise 77 advise 0 ");
}

/* Whether the answer has both processors, with what the machine says of them. */
static bool has_registers(FILE *peer)
{
	char line[CONTROL_REQUEST_BYTES];
	json_t *answer, *processors;
	bool good;

	ask(peer, "registers");
	if (!fgets(line, sizeof(line), peer))
		return false;
	answer = json_loads(line, 0, NULL);
	processors = json_object_get(answer, "processors");
	good = json_array_size(processors) == 2 && strstr(line, "\"0xffffffffffffffff\"") &&
	       strstr(line, "\"halted\"") && strstr(line, "\"r15\":\"0xf\"");
	json_decref(answer);
	return good;
}

static void registers(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();
	FILE *other = connect_to();

	expect("registers", has_registers(peer) && has_registers(peer));
	ask(other, "registers"); /* and nobody reads the answer */
	fclose(other);
	expect("registers, also of a machine that another has asked", has_registers(peer));
	fclose(peer);
	stop();
	finish("a machine that is asked for registers", running, BROKER_ENDED, "");
}

static void nonsense(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();
	char line[2000];

	expect("memory without a number", answers(peer, "{\"do\":\"memory\"}\n", "error -22"));
	expect("memory with a text",
	       answers(peer, "{\"do\":\"memory\",\"bytes\":\"1\"}\n", "error -22"));
	expect("memory below nothing",
	       answers(peer, "{\"do\":\"memory\",\"bytes\":-1}\n", "error -22"));
	expect("memory beyond all",
	       answers(peer, "{\"do\":\"memory\",\"bytes\":99999999999999999999}\n", "error -22"));
	expect("a member that is none",
	       answers(peer, "{\"do\":\"info\",\"file\":\"x\"}\n", "error -22"));
	expect("a member twice", answers(peer, "{\"do\":\"info\",\"do\":\"stop\"}\n", "error -22"));
	expect("an id that is a list",
	       answers(peer, "{\"id\":[1],\"do\":\"stop\"}\n", "error -22"));
	expect("an id that is long",
	       answers(peer,
		       "{\"id\":\"01234567890123456789012345678901234"
		       "56789012345678901234567890123456789\","
		       "\"do\":\"stop\"}\n",
		       "error -22"));
	expect("no verb", answers(peer, "{\"id\":1}\n", "error -22"));
	expect("no object", answers(peer, "{\"id\"\n", "error -22"));
	expect("no such line", answers(peer, "please\n", "error -22"));
	expect("an empty line", answers(peer, "\n", "error -22"));
	expect("two at once: the first",
	       answers(peer, "{\"do\":\"info\"}\n{\"do\":\"info\"}\n", "ok what it is"));
	expect("and the second", answers(peer, "", "ok what it is"));
	memset(line, 'x', sizeof(line));
	for (size_t sent = 0; sent < CONTROL_LINE_BYTES; sent += sizeof(line))
		fwrite(line, 1, sizeof(line), peer);
	fflush(peer);
	expect("a line without end is hung up on", fgetc(peer) == EOF);
	fclose(peer);
	peer = connect_to();
	fwrite("\0\0\n", 1, 3, peer);
	fflush(peer);
	expect("NULs", answers(peer, "", "error -22"));
	fclose(peer);
	stop();
	finish("it did not matter", running, BROKER_ENDED, "");
}

static void hanging_up(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to();

	expect("a save", takes_save(peer, "ok"));
	fclose(peer);
	peer = connect_to();
	expect("saved again: the machine went on",
	       takes_save(peer, "ok") && answers(peer, "resume", "ok"));
	ask(peer, "save");
	expect("data comes", fgetc(peer) == '{');
	fclose(peer); /* in the middle */
	peer = connect_to();
	expect("the next one is heard", answers(peer, "info", "ok what it is"));
	expect("a save after that one's end",
	       takes_save(peer, "ok") && answers(peer, "resume", "ok"));
	fclose(peer);
	stop();
	finish("a peer that hangs up lets the machine go on", running, BROKER_ENDED,
	       "save resume save resume save resume save resume ");
}

/* As many as there is room for are heard at the same time; the next one when one of them leaves. */
static void many_peers(void)
{
	struct running running = start(good_machine);
	FILE *peers[CONTROL_PEERS], *late, *other;
	struct pollfd ready = { .events = POLLIN };
	bool good = true;

	for (int n = 0; n < CONTROL_PEERS; n++) {
		peers[n] = connect_to();
		good &= answers(peers[n], "info", "ok what it is");
	}
	expect("several peers", good);
	late = connect_to();
	ask(late, "info");
	ready.fd = fileno(late);
	expect("one too many waits", poll(&ready, 1, 100) == 0);
	expect("a save beside the others", takes_save(peers[0], "ok"));
	expect("it is not another's to end", answers(peers[1], "resume", "error -16"));
	expect("nor to begin again", answers(peers[1], "save", "error -16"));
	fclose(peers[2]);
	expect("one left: the one that waits is heard", answers(late, "", "ok what it is"));
	expect("it goes on", answers(peers[0], "resume", "ok"));
	other = peers[1];
	expect("another's save", takes_save(other, "ok") && answers(other, "stop", "ok"));
	finish("a machine with several peers", running, BROKER_ENDED, "save resume save ");
	for (int n = 0; n < CONTROL_PEERS; n++)
		if (n != 2)
			fclose(peers[n]);
	fclose(late);
}

/* What a peer does not take stops nothing but its save. */
static void not_reading(void)
{
	struct running running = start(good_machine);
	FILE *peer = connect_to(), *other;

	ask(peer, "save");
	usleep(200000);
	kill(running.pid, SIGTERM);
	finish("SIGTERM while a peer does not read", running, BROKER_STOPPED, "save ");
	fclose(peer);
	running = start(good_machine);
	peer = connect_to();
	ask(peer, "save");
	usleep(200000);
	other = connect_to();
	expect("another is heard meanwhile", answers(other, "info", "ok what it is"));
	expect("registers are not waited for", answers(other, "registers", "error -16"));
	expect("and can kill", answers(other, "kill", "ok"));
	finish("killed while a peer does not read", running, BROKER_STOPPED, "save ");
	fclose(peer);
	fclose(other);
	running = start(deaf_machine);
	peer = connect_to();
	ask(peer, "save");
	fclose(peer);
	peer = connect_to();
	expect("a machine that does not answer: busy", answers(peer, "save", "error -16"));
	expect("kill", answers(peer, "kill", "ok"));
	fclose(peer);
	finish("killed", running, BROKER_STOPPED, "");
}

static bool hears(FILE *peer, const char *want)
{
	char line[128] = "";

	return fgets(line, sizeof(line), peer) && !strcmp(line, want);
}

/* The answer that nobody may crosses what the machine says next. */
static void wish_dropped_at_once(void)
{
	struct running running = start(machine_that_wishes);
	FILE *peer = connect_to();

	expect("a wish that is dropped at once", answers(peer, "memory 3", "ok"));
	expect("is answered once", has_said(running, "ended -1 0 "));
	expect("stop", answers(peer, "stop", "ok"));
	fclose(peer);
	finish("a machine that drops its wish at once", running, BROKER_ENDED, "ended -1 0 ");
}

/* Forks that a guest asks for: each wish is answered once, whoever says what when. */
static void wishes(void)
{
	struct running running = start(machine_that_wishes);
	FILE *peer = connect_to();
	FILE *door = connect_to();

	expect("a wish", answers(peer, "memory 1", "ok"));
	expect("that nobody may grant", has_said(running, "ended -1 0 "));
	expect("somebody may", answers(door, "forks", "ok"));
	expect("nobody else", answers(peer, "forks", "error -16"));
	expect("another wish", answers(peer, "memory 1", "ok"));
	expect("which he hears", hears(door, "{\"id\":7,\"wanted\":1}\n"));
	expect("no other grants it",
	       answers(peer, "{\"do\":\"forked\",\"number\":1}\n", "error -22"));
	expect("nor he one that nobody has",
	       answers(door, "{\"do\":\"forked\",\"number\":2,\"child\":3}\n", "error -125"));
	expect("nor with what is no error",
	       answers(door, "{\"do\":\"forked\",\"number\":1,\"errno\":4096}\n", "error -22"));
	expect("nor as what a child is told",
	       answers(door, "{\"do\":\"forked\",\"number\":1}\n", "error -22"));
	expect("granted",
	       answers(door, "{\"do\":\"forked\",\"number\":1,\"child\":3}\n", "ok"));
	expect("its machine hears which", has_said(running, "ended -1 0 ended 0 3 "));
	expect("once",
	       answers(door, "{\"do\":\"forked\",\"number\":1,\"child\":3}\n", "error -125"));
	expect("one that is not wanted long", answers(peer, "memory 1", "ok") &&
		       hears(door, "{\"id\":7,\"wanted\":2}\n") &&
		       answers(peer, "memory 2", "ok") &&
		       hears(door, "{\"id\":7,\"unwanted\":2}\n"));
	expect("is cancelled", has_said(running, "ended -1 0 ended 0 3 ended -125 0 "));
	expect("and granted no more",
	       answers(door, "{\"do\":\"forked\",\"number\":2,\"child\":4}\n", "error -125"));
	expect("what is not wanted any more already", answers(peer, "memory 2", "ok"));
	expect("one more", answers(peer, "memory 1", "ok") &&
				   hears(door, "{\"id\":7,\"wanted\":3}\n"));
	fclose(door);
	expect("who may is gone",
	       has_said(running, "ended -1 0 ended 0 3 ended -125 0 ended -5 0 "));
	expect("stop", answers(peer, "stop", "ok"));
	fclose(peer);
	finish("a machine that wishes to be forked", running, BROKER_ENDED,
	       "ended -1 0 ended 0 3 ended -125 0 ended -5 0 ");
	finish("half a wish", start(wishes_half), BROKER_RUBBISH, "");
	finish("a wish of no kind", start(wishes_what_is_none), BROKER_RUBBISH, "");
	running = start(machine_that_wishes);
	peer = connect_to();
	door = connect_to();
	expect("two at once", answers(door, "forks", "ok") && answers(peer, "memory 1", "ok") &&
				      hears(door, "{\"id\":7,\"wanted\":1}\n"));
	ask(peer, "memory 1");
	finish("are one too many", running, BROKER_RUBBISH, "");
	fclose(door);
	fclose(peer);
}

static void lying_machines(void)
{
	struct running running;
	FILE *peer;

	finish("data of a save that nobody asked for", start(unasked_data), BROKER_RUBBISH, "");
	finish("registers that nobody asked for", start(unasked_registers), BROKER_RUBBISH, "");
	running = start(half_registers);
	peer = connect_to();
	ask(peer, "registers");
	finish("half a processor's registers", running, BROKER_RUBBISH, "");
	fclose(peer);
	finish("the end of one", start(unasked_end), BROKER_RUBBISH, "");
	running = start(short_end);
	peer = connect_to();
	ask(peer, "save");
	finish("an end that is too short", running, BROKER_RUBBISH, "");
	fclose(peer);
	running = start(dies_in_a_save);
	peer = connect_to();
	ask(peer, "save");
	finish("a machine that dies in a save", running, BROKER_MACHINE_DIED, "");
	while (fgetc(peer) != EOF)
		;
	expect("its peer is told by the end", true);
	fclose(peer);
}

/* As a disk process whose files do not come to an end of being opened. */
static int helper_is_never_ready(const struct helper_ends *ends)
{
	(void)ends;
	for (;;)
		pause();
	return 1;
}

static int begin[2];

/* Ready once it is told. */
static int helper_is_told(const struct helper_ends *ends)
{
	char byte;

	if (read(begin[0], &byte, 1) != 1 || write(ends->ready_fd, "", 1) != 1)
		return 1;
	return (int)read(ends->end_fd, &byte, 1);
}

/* What the machine occupies is not known before: who watches is told with it, or not at all. */
static void watched_early(void)
{
	struct pollfd heard = { .events = POLLIN };
	struct running running;
	FILE *watcher;
	FILE *peer;
	char line[CONTROL_REQUEST_BYTES];

	if (pipe(begin))
		exit(2);
	running = start_with(good_machine, helper_is_told);
	watcher = connect_to();
	ask(watcher, "narrow");
	expect("who is narrowed is answered before a machine begins",
	       fgets(line, sizeof(line), watcher));
	ask(watcher, "watch");
	peer = connect_to();
	expect("and so is who asks", answers(peer, "info", "ok what it is") &&
					     answers(peer, "info", "ok what it is"));
	heard.fd = fileno(watcher);
	expect("who watches waits for it", !poll(&heard, 1, 0));
	expect("it begins", write(begin[1], "", 1) == 1);
	expect("and is heard of then", fgets(line, sizeof(line), watcher) &&
					       strstr(line, "\"machine\""));
	expect("stop", answers(peer, "stop", "ok"));
	fclose(peer);
	fclose(watcher);
	finish("a machine that is watched before it begins", running, BROKER_ENDED, "");
	close(begin[0]);
	close(begin[1]);
}

#define TRACE_QUESTION(kinds, milliseconds) \
	"{\"id\":7,\"do\":\"trace\",\"kinds\":\"" kinds "\",\"milliseconds\":" #milliseconds "}\n"

/* Pieces of a trace, until it ends or has so many records of CPUID in their order. */
static bool take_trace(FILE *peer, unsigned most, json_int_t *ret_dropped)
{
	struct trace_record record;
	char line[TEXT_BYTES];
	unsigned count = 0;

	*ret_dropped = -1;
	while (count < most && fgets(line, sizeof(line), peer)) {
		json_t *answer = json_loads(line, 0, NULL);
		json_int_t bytes = json_integer_value(json_object_get(answer, "data"));

		if (json_is_true(json_object_get(answer, "ok")))
			*ret_dropped = json_integer_value(json_object_get(answer, "dropped"));
		json_decref(answer);
		if (!bytes)
			break;
		for (; bytes > 0; bytes -= (json_int_t)sizeof(record))
			if (fread(&record, sizeof(record), 1, peer) == 1 &&
			    record.kind == TRACE_CPUID && record.word[0] == count &&
			    record.word[1] == ~(uint64_t)count)
				count++;
	}
	return count == most;
}

/* Both ends in this process: what finds no room is counted, and what was said before stays. */
static void trace_overflows(void)
{
	static struct trace_memory memory;
	static struct trace_record records[TRACE_RECORDS];
	struct trace_reader reader;
	struct trace trace;
	unsigned count;

	trace_init(&trace, &memory);
	trace_begin(&reader, &memory);
	for (uint64_t n = 0; n < TRACE_RECORDS + 5; n++)
		trace_put(&trace, &(struct trace_record){ .ns = n, .kind = TRACE_CPUID });
	expect("a trace that overflows",
	       trace_get(&reader, UINT32_MAX, records, TRACE_RECORDS, &count) == TRACE_RECORDS &&
		       count == TRACE_RECORDS && records[TRACE_RECORDS - 1].ns == count - 1 &&
		       trace_dropped(&reader) == 5);
	trace_put(&trace, &(struct trace_record){ .ns = 1, .kind = TRACE_CPUID });
	expect("and goes on once there is room",
	       trace_get(&reader, UINT32_MAX, records, TRACE_RECORDS, &count) == 1);
	trace_put(&trace, &(struct trace_record){ .ns = 1, .kind = TRACE_CPUID });
	trace_begin(&reader, &memory);
	expect("the next one begins anew", !trace_get(&reader, UINT32_MAX, records, 1, &count) &&
						   !trace_dropped(&reader));
}

static void traced(void)
{
	struct running running = start(is_traced);
	FILE *peer = connect_to();
	FILE *other = connect_to();
	json_int_t dropped;

	expect("what is not to be traced",
	       answers(peer, TRACE_QUESTION("nothing", 5), "error -22"));
	expect("for no time", answers(peer, TRACE_QUESTION("cpuid", 0), "error -22"));
	ask(peer, TRACE_QUESTION("cpuid,port-read", 3600000));
	expect("the machine hears of it", has_said(running, "begins "));
	expect("one at a time", answers(other, TRACE_QUESTION("cpuid", 5), "error -16"));
	expect("who was narrowed traces nothing",
	       answers(other, "narrow", "ok") &&
		       answers(other, TRACE_QUESTION("cpuid", 5), "error -1"));
	expect("what was asked for comes, in order", take_trace(peer, TRACED, &dropped));
	expect("and other questions are answered", answers(peer, "info", "ok what it is"));
	fclose(other);
	fclose(peer);
	expect("it ends with its connection", has_said(running, "begins is over "));
	peer = connect_to();
	ask(peer, TRACE_QUESTION("cpuid", 1));
	expect("or in time, and nothing was dropped",
	       take_trace(peer, UINT32_MAX, &dropped) || !dropped);
	expect("the connection goes on", answers(peer, "stop", "ok"));
	fclose(peer);
	finish("a machine that is traced", running, BROKER_ENDED, "begins is over ");
}

static void lying_traces(void)
{
	static const struct { int (*machine)(struct client *); const char *what; } liars[] = {
		{ trace_head, "a trace whose index is rubbish" },
		{ trace_of_no_kind, "a record of a trace that is of no kind" },
		{ trace_of_kind_zero, "or that was never written" },
		{ trace_of_no_processor, "or of a processor that there cannot be" },
	};

	for (size_t n = 0; n < sizeof(liars) / sizeof(liars[0]); n++) {
		struct running running = start(liars[n].machine);
		FILE *peer = connect_to();

		ask(peer, TRACE_QUESTION("exits", 3600000));
		finish(liars[n].what, running, BROKER_RUBBISH, "");
		fclose(peer);
	}
}

static void before_it_begins(void)
{
	static const struct { const char *question, *what; } ends[] = {
		{ "stop", "stop ends a machine whose disks are still being opened" },
		{ "kill", "and so does kill" },
	};

	for (unsigned n = 0; n < 2; n++) {
		struct running running = start_with(deaf_machine, helper_is_never_ready);
		FILE *peer = connect_to();

		expect("info before a machine begins", answers(peer, "info", "ok what it is"));
		expect("who asks for its end is answered", answers(peer, ends[n].question, "ok"));
		finish(ends[n].what, running, BROKER_STOPPED, "");
		expect("the connection has ended", fgetc(peer) == EOF);
		fclose(peer);
	}
}

int main(void)
{
	address.sun_family = AF_UNIX;
	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/umbra-control-test-%d",
		 (int)getpid());
	signal(SIGPIPE, SIG_IGN);
	alarm(120);
	proper();
	memory();
	watched();
	advised_and_held();
	narrowed();
	registers();
	nonsense();
	hanging_up();
	many_peers();
	not_reading();
	lying_machines();
	wishes();
	wish_dropped_at_once();
	trace_overflows();
	traced();
	lying_traces();
	before_it_begins();
	watched_early();
	unlink(address.sun_path);
	return failures != 0;
}
