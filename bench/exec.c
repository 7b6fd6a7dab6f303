/*
 * How long `umbra exec NAME -- true` takes, and where: exec-bench UMBRA NAME SOCKET [ROUNDS].
 *
 * Rounds go in turns, a whole command and then the same by hand over the machine's socket
 * (docs/bus.md, abi/agent_layout.h), in two parts: until there is a connection, until the program
 * has ended. A program that does nothing is measured, too: what it takes is the host's. Of the
 * processes in MACHINE_PIDS (environment) the processor time of a round is said, which says more
 * than the clock where the host is busy.
 */
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "abi/agent_layout.h"

enum { ROUNDS = 1000, GREETING_BYTES = 64 };
enum part { NOTHING, COMMAND, ACCEPTED, EXITED, WHOLE, PARTS };

static const char *const names[PARTS] = {
	[NOTHING] = "a program of the host that does nothing",
	[COMMAND] = "umbra exec NAME -- true",
	[ACCEPTED] = "  the guest has accepted a connection",
	[EXITED] = "  its program has begun and ended",
	[WHOLE] = "  both",
};

extern char **environ;

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "exec-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- processor time ---- */

static double children_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

/* Of all its threads. */
static double process_ms(int pid)
{
	struct timespec used = { .tv_sec = 0 };
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &used))
		return 0;
	return (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
}

static double machine_ms(void)
{
	const char *text = getenv("MACHINE_PIDS");
	double sum = 0;
	char *end;

	for (long pid; text && (pid = strtol(text, &end, 10)) > 0; text = end)
		sum += process_ms((int)pid);
	return sum;
}

/* ---- one round ---- */

static double run(char **words)
{
	const double begin = now_ms();
	pid_t pid;
	int status;

	if (posix_spawn(&pid, words[0], NULL, NULL, words, environ))
		give_up(words[0]);
	if (waitpid(pid, &status, 0) != pid || status)
		give_up("its end");
	return now_ms() - begin;
}

static void get(int fd, void *to, size_t bytes)
{
	if (recv(fd, to, bytes, MSG_WAITALL) != (ssize_t)bytes)
		give_up("the connection");
}

static int connect_to(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char text[GREETING_BYTES];
	int bytes = snprintf(text, sizeof(text), "CONNECT %u\n", AGENT_PORT);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) ||
	    send(fd, text, (size_t)bytes, 0) != bytes)
		give_up(path);
	do
		get(fd, text, 1);
	while (text[0] != '\n');
	return fd;
}

static void ask(int fd)
{
	struct {
		struct agent_frame head;
		struct agent_exec exec;
		char text[5];
	} question = { .head = { .kind = AGENT_EXEC },
		       .exec = { .flags = AGENT_AGAIN, .arguments = 1 },
		       .text = "true" };

	question.head.bytes = sizeof(question.exec) + sizeof(question.text);
	if (send(fd, &question, sizeof(question.head) + question.head.bytes, 0) < 0)
		give_up("a question");
}

static void hear_end(int fd)
{
	struct { struct agent_frame head; struct agent_exited exited; } end;

	get(fd, &end, sizeof(end));
	if (end.head.kind != AGENT_EXITED || end.exited.code)
		give_up("another answer");
}

static void talk(const char *path, double *const *values, unsigned n)
{
	const double begin = now_ms();
	const int fd = connect_to(path);
	const double accepted = now_ms();

	ask(fd);
	hear_end(fd);
	close(fd);
	values[ACCEPTED][n] = accepted - begin;
	values[EXITED][n] = now_ms() - accepted;
	values[WHOLE][n] = now_ms() - begin;
}

/* ---- all of them ---- */

static int compare(const void *a, const void *b)
{
	const double left = *(const double *)a;
	const double right = *(const double *)b;

	return (left > right) - (left < right);
}

static void say(const char *name, double *values, unsigned count)
{
	qsort(values, count, sizeof(*values), compare);
	printf("%-42s least %7.2f  p50 %7.2f  p99 %7.2f ms\n", name, values[0], values[count / 2],
	       values[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	const unsigned rounds = argc > 4 ? (unsigned)atoi(argv[4]) : ROUNDS;
	double *values[PARTS];
	double of_machine = 0;
	double of_command = 0;
	char *nothing[] = { "/bin/true", NULL };
	char *words[] = { argv[1], "exec", argv[2], "--", "true", NULL };

	if (argc < 4 || !rounds)
		return 64;
	for (unsigned n = 0; n < PARTS; n++)
		values[n] = calloc(rounds, sizeof(double));
	for (unsigned n = 0; n < rounds; n++) {
		values[NOTHING][n] = run(nothing);
		of_command -= children_ms();
		of_machine -= machine_ms();
		values[COMMAND][n] = run(words);
		of_machine += machine_ms();
		of_command += children_ms();
		talk(argv[3], values, n);
	}
	for (unsigned n = 0; n < PARTS; n++)
		say(names[n], values[n], rounds);
	printf("processor time a command: %.2f ms of umbra exec, %.2f ms of the machine\n",
	       of_command / rounds, of_machine / rounds);
	return 0;
}
