/* The broker with machine processes that die, lie, flood or say nothing: it always comes back, with the right outcome. */
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

#include "../../src/broker/broker.h"

static int failures;
static unsigned long console_bytes;

static void put(struct broker_client *c, uint32_t kind, const void *data, uint32_t bytes)
{
	while (ring_put(&c->to_broker, kind, data, bytes) == -11)
		ring_wait(&c->to_broker);
}

static int ends(struct broker_client *c, void *unused)
{
	int32_t code[2] = { 3, 5 };

	(void)unused;
	put(c, RECORD_CONSOLE, "hello\n", 6);
	put(c, RECORD_ENDED, code, 8);
	return 0;
}

static int floods(struct broker_client *c, void *unused)
{
	static char text[RING_RECORD_MAX_BYTES];
	int32_t code[2] = { 0, 0 };

	(void)unused;
	for (int n = 0; n < 2000; n++)
		put(c, RECORD_CONSOLE, text, sizeof(text));
	put(c, RECORD_ENDED, code, 8);
	return 0;
}

static int exits(struct broker_client *c, void *unused) { (void)c, (void)unused; return 0; }
static int is_killed(struct broker_client *c, void *unused) { (void)c, (void)unused; return raise(SIGKILL); }
static int crashes(struct broker_client *c, void *unused)
{
	(void)unused;
	memset(c->memory->last_words, 'x', sizeof(c->memory->last_words)); /* without an end */
	return raise(SIGSEGV);
}

static int rubbish_head(struct broker_client *c, void *unused)
{
	const uint64_t one = 1;

	c->memory->to_broker.head = 0x7fffffff;
	(void)unused;
	if (write(c->event_out, &one, 8) == 8)
		pause();
	return 0;
}

static int rubbish_length(struct broker_client *c, void *unused)
{
	uint32_t *word = (uint32_t *)(void *)c->memory->to_broker.data;
	const uint64_t one = 1;

	(void)unused;
	word[0] = RECORD_CONSOLE;
	word[1] = 0xfffffff8;
	c->memory->to_broker.head = 16;
	if (write(c->event_out, &one, 8) == 8)
		pause();
	return 0;
}

static int rubbish_kind(struct broker_client *c, void *unused) { (void)unused; put(c, 77, "x", 1); pause(); return 0; }
static int short_end(struct broker_client *c, void *unused) { (void)unused; put(c, RECORD_ENDED, "x", 1); pause(); return 0; }
static int ends_twice(struct broker_client *c, void *unused) { ends(c, unused); ends(c, unused); pause(); return 0; }

static int is_stopped(struct broker_client *c, void *unused)
{
	(void)c, (void)unused;
	signal(SIGTERM, SIG_IGN);
	kill(getppid(), SIGTERM);
	while (pause()) /* hears nothing */
		;
	return 0;
}

/* Long records from a producer that often has to wait, to a consumer that is now faster and now slower: it always wakes. */
static int many_records(void)
{
	enum { RECORDS = 1000000 };
	static struct ring_memory *m;
	static uint8_t data[RING_RECORD_MAX_BYTES];
	struct ring_end in = { 0 };
	uint32_t kind, bytes, expected = 0, random = 1;
	pid_t child;
	int event = eventfd(0, EFD_NONBLOCK), status;

	m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	in.memory = m;
	child = fork();
	if (!child) {
		struct ring_end out = { .memory = m, .wake_fd = event };

		alarm(60);
		for (uint32_t n = 0; n < RECORDS; n++)
			while (ring_put(&out, n, data, 3000 + n * 7919 % 5000) == -EAGAIN)
				ring_wait(&out);
		_exit(0);
	}
	alarm(60);
	while (expected < RECORDS) {
		int got = ring_get(&in, &kind, data, &bytes);

		if (got < 0 || (got && (kind != expected++ || bytes != 3000 + kind * 7919 % 5000)))
			break;
		random = random * 1103515245 + 12345;
		for (volatile uint32_t n = 0; n < (random >> 16) % 3000; n++) /* so that the other side is met in every state */
			;
	}
	if (expected < RECORDS)
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(event);
	munmap(m, sizeof(*m));
	return expected == RECORDS && !status ? 0 : 1;
}

static void console(void *context, const uint8_t *data, size_t bytes) { (void)context, (void)data; console_bytes += bytes; }
static bool key(void *context, uint8_t byte, bool *ret_stop) { (void)context, (void)byte, (void)ret_stop; return false; }
static void started(void *context) { (void)context; }

/* The broker locks itself down: in a process of its own. */
static int outcome_of(int (*machine)(struct broker_client *, void *))
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct broker_options o = { machine, console, key, started, NULL, -1, -1, NULL, NULL };
		static struct broker_end end;

		if (broker_run(&o, &end) || memchr(end.text, 0, sizeof(end.text)) == NULL)
			_exit(99);
		_exit((int)end.outcome * 10 + (console_bytes ? 1 : 0) + (end.code == 3 ? 2 : 0));
	}
	for (int n = 0; n < 1000; n++) {
		struct timespec t = { 0, 10000000 };

		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		nanosleep(&t, NULL);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return 2000;
}

static void expect(const char *what, int (*machine)(struct broker_client *, void *), int want)
{
	int got = outcome_of(machine);

	printf("%s %s", got == want ? "ok  " : "FAIL", what);
	printf(got == want ? "\n" : ": %d, not %d\n", got, want);
	fflush(stdout);
	failures += got != want;
}

int main(void)
{
	printf("%s a ring that is full most of the time\n", many_records() ? (failures++, "FAIL") : "ok  ");
	expect("a machine that ends", ends, BROKER_ENDED * 10 + 3);
	expect("16 MiB of console", floods, BROKER_ENDED * 10 + 1);
	expect("a machine process that goes without a word", exits, BROKER_MACHINE_DIED * 10);
	expect("one that is killed", is_killed, BROKER_MACHINE_DIED * 10);
	expect("one that crashes, with last words that do not end", crashes, BROKER_MACHINE_DIED * 10);
	expect("an index of rubbish", rubbish_head, BROKER_RUBBISH * 10);
	expect("a length of rubbish", rubbish_length, BROKER_RUBBISH * 10);
	expect("a record of no kind", rubbish_kind, BROKER_RUBBISH * 10);
	expect("an end that is too short", short_end, BROKER_RUBBISH * 10);
	expect("two ends", ends_twice, BROKER_ENDED * 10 + 3);
	expect("SIGTERM while the machine hears nothing", is_stopped, BROKER_STOPPED * 10);
	return failures != 0;
}
