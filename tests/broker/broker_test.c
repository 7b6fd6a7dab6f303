/*
 * The broker with machine processes that die, lie, flood or say nothing: it always comes back, with
 * the right outcome.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "process/errors.h"

static int failures;

static void put(struct client *client, uint32_t kind, const void *data, uint32_t bytes)
{
	while (ring_put(&client->to_broker, kind, data, bytes) == -11)
		ring_wait(&client->to_broker);
}

static int ends(struct client *client)
{
	int32_t code[2] = { 3, 5 };

	put(client, RECORD_CONSOLE, "hello\n", 6);
	put(client, RECORD_ENDED, code, 8);
	return 0;
}

static int floods(struct client *client)
{
	static char text[RING_RECORD_MAX_BYTES];
	int32_t code[2] = { 0, 0 };

	for (int n = 0; n < 2000; n++)
		put(client, RECORD_CONSOLE, text, sizeof(text));
	put(client, RECORD_ENDED, code, 8);
	return 0;
}

static int exits(struct client *client) { (void)client; return 0; }
static int is_killed(struct client *client) { (void)client; return raise(SIGKILL); }
static int crashes(struct client *client)
{
	memset(client->memory->last_words, 'x',
	       sizeof(client->memory->last_words)); /* without an end */
	return raise(SIGSEGV);
}

static int rubbish_head(struct client *client)
{
	const uint64_t one = 1;

	client->memory->to_broker.head = 0x7fffffff;
	if (write(client->event_out, &one, 8) == 8)
		pause();
	return 0;
}

static int rubbish_length(struct client *client)
{
	uint32_t *word = (uint32_t *)(void *)client->memory->to_broker.data;
	const uint64_t one = 1;

	word[0] = RECORD_CONSOLE;
	word[1] = 0xfffffff8;
	client->memory->to_broker.head = 16;
	if (write(client->event_out, &one, 8) == 8)
		pause();
	return 0;
}

static int rubbish_kind(struct client *client) { put(client, 77, "x", 1); pause(); return 0; }
static int short_end(struct client *client)
{
	put(client, RECORD_ENDED, "x", 1);
	pause();
	return 0;
}
static int ends_twice(struct client *client) { ends(client); ends(client); pause(); return 0; }

static int is_stopped(struct client *client)
{
	(void)client;
	signal(SIGTERM, SIG_IGN);
	kill(getppid(), SIGTERM);
	while (pause()) /* hears nothing */
		;
	return 0;
}

/* Asked to power off: says that its guest was asked, and ends a while later, in order. */
static int powers_off(struct client *client)
{
	uint8_t data[RING_RECORD_MAX_BYTES];
	uint32_t kind = 0;
	uint32_t bytes;
	uint64_t count;
	int32_t asked = 1;

	kill(getppid(), SIGTERM);
	while (kind != RECORD_SHUT_DOWN && read(client->event_in, &count, 8) == 8)
		ring_get(&client->from_broker, &kind, data, &bytes);
	put(client, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
	usleep(900000); /* longer than one that says nothing has */
	return ends(client);
}

/* Its guest was asked, but who stopped it does not want to wait. */
static int is_stopped_twice(struct client *client)
{
	int32_t asked = 1;

	kill(getppid(), SIGTERM);
	usleep(100000);
	put(client, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
	usleep(100000);
	kill(getppid(), SIGTERM);
	pause();
	return 0;
}

static int asks_unasked(struct client *client)
{
	int32_t asked = 1;

	put(client, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
	pause();
	return 0;
}

static int asks_again(struct client *client)
{
	int32_t asked = 1;

	kill(getppid(), SIGTERM);
	usleep(100000);
	put(client, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
	put(client, RECORD_SHUTTING_DOWN, &asked, sizeof(asked));
	pause();
	return 0;
}

static int short_state(struct client *client)
{
	put(client, RECORD_STATE, "12345678", 8);
	pause();
	return 0;
}

static int unwanted_code(struct client *client)
{
	put(client, RECORD_CODE, "12345678", 8);
	pause();
	return 0;
}

/* ---- helpers ---- */

static int helper_waits(const struct helper_ends *ends)
{
	char byte;

	if (write(ends->ready_fd, "", 1) != 1)
		return 1;
	return read(ends->end_fd, &byte, 1) ? 2 : 7; /* the machine is gone: 7 */
}

static int helper_refuses(const struct helper_ends *ends)
{
	(void)ends;
	return 9;
}

static int helper_dies(const struct helper_ends *ends)
{
	if (write(ends->ready_fd, "", 1) == 1)
		usleep(100000);
	return raise(SIGKILL);
}

/* It hears of the end, and goes on. */
static int helper_stays(const struct helper_ends *ends)
{
	if (write(ends->ready_fd, "", 1) != 1)
		return 1;
	for (;;)
		pause();
}

/* Nothing is lost with it: it has less time than one that may still have to write. */
static int helper_is_spare(const struct helper_ends *ends) { return helper_stays(ends); }

static int helper_is_never_ready(const struct helper_ends *ends)
{
	(void)ends;
	while (!kill(getppid(), SIGTERM))
		pause();
	return 1;
}

/* More than is shown, with what acts on a terminal. */
static int helper_shouts(const struct helper_ends *ends)
{
	static const char text[] = "\x1b]0;title\a\x1b[31m\x9b\r\t\xc3\xa4rger\n";

	for (size_t n = 0; n < 4 * ERRORS_MOST_BYTES / sizeof(text); n++)
		if (write(STDERR_FILENO, text, sizeof(text) - 1) != sizeof(text) - 1)
			return 1;
	return helper_waits(ends);
}

static int sleeps(struct client *client)
{
	(void)client;
	return pause();
}

/* Of each second record alone, and before it waits, the consumer is told. */
static void put_in_turns(struct ring_end *out, uint32_t kind, const void *data, uint32_t bytes)
{
	while ((kind % 2 ? ring_put : ring_add)(out, kind, data, bytes) == -EAGAIN) {
		ring_wake(out);
		ring_wait(out);
	}
}

/*
 * Long records from a producer that often has to wait, to a consumer that is now faster and now
 * slower: it always wakes.
 */
static int many_records(void)
{
	enum { RECORDS = 300000 };
	static struct ring_memory *memory;
	static uint8_t data[RING_RECORD_MAX_BYTES];
	struct ring_end in = { 0 };
	uint32_t kind, bytes, expected = 0, random = 1;
	pid_t child;
	int event = eventfd(0, EFD_NONBLOCK), status;

	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	in.memory = memory;
	child = fork();
	if (!child) {
		struct ring_end out = { .memory = memory, .wake_fd = event };

		alarm(300);
		for (uint32_t n = 0; n < RECORDS; n++)
			put_in_turns(&out, n, data, 3000 + n * 7919 % 5000);
		_exit(0);
	}
	alarm(300);
	while (expected < RECORDS) {
		int got = ring_get(&in, &kind, data, &bytes);

		if (got < 0 || (got && (kind != expected++ || bytes != 3000 + kind * 7919 % 5000)))
			break;
		random = random * 1103515245 + 12345;
		for (volatile uint32_t n = 0; n < (random >> 16) % 3000;
		     n++) /* so that the other side is met in every state */
			;
	}
	if (expected < RECORDS)
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(event);
	munmap(memory, sizeof(*memory));
	return expected == RECORDS && !status ? 0 : 1;
}

static int (*helper)(const struct helper_ends *);
static int errors_fd = -1;

/* The broker locks itself down: in a process of its own. */
static int outcome_of(int (*machine)(struct client *))
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct harness harness = { .machine = machine,
					   .helper = helper,
					   .helper_is_spare = helper == helper_is_spare,
					   .helper_ms = helper == helper_stays ? 200 : 0,
					   .console_fd = memfd_create("console", 0),
					   .control_fd = -1,
					   .description = "" };
		static struct broker_end end;
		char console_byte;

		if (errors_fd >= 0)
			dup2(errors_fd, STDERR_FILENO);
		if (harness_run(&harness, &end) || memchr(end.text, 0, sizeof(end.text)) == NULL)
			_exit(99);
		if (helper)
			_exit((int)end.outcome * 10 +
			      (WIFEXITED(end.helper_status) ? WEXITSTATUS(end.helper_status) : 5));
		_exit((int)end.outcome * 10 +
		      (pread(grant_fd(GRANT_CONSOLE), &console_byte, 1, 0) == 1) +
		      (end.code == 3 ? 2 : 0));
	}
	for (int n = 0; n < 1000; n++) {
		struct timespec now = { 0, 10000000 };

		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		nanosleep(&now, NULL);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return 2000;
}

static void expect(const char *what, int (*machine)(struct client *), int want)
{
	int got = outcome_of(machine);

	printf("%s %s", got == want ? "ok  " : "FAIL", what);
	printf(got == want ? "\n" : ": %d, not %d\n", got, want);
	fflush(stdout);
	failures += got != want;
}

/* What was shown of a helper that shouts. */
static void expect_text(void)
{
	static char text[2 * ERRORS_MOST_BYTES];
	ssize_t got;
	bool has_control = false;

	errors_fd = memfd_create("errors", 0);
	helper = helper_shouts;
	expect("a helper that shouts", ends, BROKER_ENDED * 10 + 7);
	got = pread(errors_fd, text, sizeof(text), 0);
	for (ssize_t n = 0; n < got; n++)
		has_control |= text[n] == '\x9b' ||
			       (text[n] != '\n' && text[n] >= 0 && text[n] < ' ');
	printf("%s what it says is shown as text, and not all of it\n",
	       got > 0 && got <= ERRORS_MOST_BYTES && !has_control &&
			       memmem(text, (size_t)got, "]0;title", 8) &&
			       memmem(text, (size_t)got, "\xc3\xa4rger", 6)
		       ? "ok  "
		       : "FAIL");
	failures += got <= 0 || got > ERRORS_MOST_BYTES || has_control;
	close(errors_fd);
	errors_fd = -1;
}

int main(void)
{
	bool bad = many_records();

	failures += bad;
	printf("%s a ring that is full most of the time\n", bad ? "FAIL" : "ok  ");
	expect("a machine that ends", ends, BROKER_ENDED * 10 + 3);
	expect("16 MiB of console", floods, BROKER_ENDED * 10 + 1);
	expect("a machine process that goes without a word", exits, BROKER_MACHINE_DIED * 10);
	expect("one that is killed", is_killed, BROKER_MACHINE_DIED * 10);
	expect("one that crashes, with last words that do not end", crashes,
	       BROKER_MACHINE_DIED * 10);
	expect("an index of rubbish", rubbish_head, BROKER_RUBBISH * 10);
	expect("a length of rubbish", rubbish_length, BROKER_RUBBISH * 10);
	expect("a record of no kind", rubbish_kind, BROKER_RUBBISH * 10);
	expect("an end that is too short", short_end, BROKER_RUBBISH * 10);
	expect("two ends", ends_twice, BROKER_ENDED * 10 + 3);
	expect("SIGTERM while the machine hears nothing", is_stopped, BROKER_STOPPED * 10);
	expect("SIGTERM, and a guest that takes its time", powers_off, BROKER_ENDED * 10 + 3);
	expect("SIGTERM twice", is_stopped_twice, BROKER_STOPPED * 10);
	expect("an answer to what was not asked", asks_unasked, BROKER_RUBBISH * 10);
	expect("an answer that would put off the end for ever", asks_again, BROKER_RUBBISH * 10);
	expect("code that nobody wants to know of", unwanted_code, BROKER_RUBBISH * 10);
	expect("a state that is too short", short_state, BROKER_RUBBISH * 10);
	helper = helper_waits;
	expect("a helper that ends after the machine", ends, BROKER_ENDED * 10 + 7);
	expect("a helper of a machine that dies", is_killed, BROKER_MACHINE_DIED * 10 + 7);
	helper = helper_stays;
	expect("a helper that does not end", ends, BROKER_ENDED * 10 + 5);
	helper = helper_is_spare;
	expect("one that serves nothing does not hold up the end", ends, BROKER_ENDED * 10 + 5);
	helper = helper_is_never_ready;
	expect("SIGTERM while a helper begins", sleeps, BROKER_STOPPED * 10 + 5);
	expect_text();
	helper = helper_refuses;
	expect("a helper that is never ready", sleeps, BROKER_HELPER_ENDED * 10 + 9);
	helper = helper_dies;
	expect("a helper that dies before the machine", sleeps, BROKER_HELPER_ENDED * 10 + 5);
	return failures != 0;
}
