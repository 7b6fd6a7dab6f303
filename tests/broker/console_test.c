/*
 * The console's file: it never grows beyond its limit, what was printed last stays, and what was
 * there before is appended to. Its stream: a reader that has stopped holds up nobody, gets what was
 * held in its order, and hears how much was lost.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process/console.h"

enum { LIMIT = 1 << 20, LINE = 32, LINES = 200000 };

static int failures;

static void expect(const char *what, bool good)
{
	fprintf(stderr, "%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

static off_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_size;
}

/* Lines in order to the last, each whole but perhaps the first. */
static bool is_end_of_lines(int fd, unsigned count)
{
	char *text = malloc(LIMIT + 1);
	ssize_t bytes = pread(fd, text, LIMIT, 0);
	char *line = bytes > 0 ? text : NULL;
	unsigned next = 0;
	bool good = line;

	text[bytes > 0 ? bytes : 0] = 0;
	line = good ? strchr(line, '\n') : NULL;
	for (; good && line && line[1]; line = strchr(line + 1, '\n')) {
		unsigned number = (unsigned)strtoul(line + 1, NULL, 10);

		good = !next || number == next;
		next = number + 1;
	}
	free(text);
	return good && next == count;
}

/* ---- a stream ---- */

static struct console stream;

static void print_number(unsigned n)
{
	char line[LINE + 1];

	snprintf(line, sizeof(line), "%*u\n", LINE - 1, n);
	console_write(&stream, (const uint8_t *)line, LINE);
}

/* What comes until nothing does: whole lines in order from 0 on. Their number. */
static unsigned read_lines(int fd, bool *ret_told)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char line[LINE + 1] = "";
	unsigned next = 0;

	*ret_told = false;
	for (;;) {
		console_push(&stream);
		if (poll(&ready, 1, 0) <= 0 || read(fd, line, LINE) != LINE)
			return next;
		*ret_told |= strstr(line, "[umbra: ") != NULL;
		if (!*ret_told && strtoul(line, NULL, 10) == next)
			next++;
	}
}

static void stopped_reader(void)
{
	const unsigned held = CONSOLE_HELD_BYTES / LINE;
	unsigned lines;
	unsigned came;
	bool told;
	int pipe_fd[2];

	if (pipe(pipe_fd) || dup2(pipe_fd[1], STDOUT_FILENO) < 0)
		exit(2);
	close(pipe_fd[1]);
	console_open(&stream, CONSOLE_RAW, -1, 0);
	for (lines = 0; console_has_room(&stream, LINE); lines++)
		print_number(lines);
	expect("what its reader does not take is held", lines > held - 8 && lines < 2 * held + 8);
	while (!console_has_room(&stream, LINE))
		poll(NULL, 0, 10);
	for (unsigned n = 0; n < held; n++)
		print_number(lines + n);
	expect("one that has stopped holds up nobody", stream.lost_bytes > held);
	came = read_lines(pipe_fd[0], &told);
	expect("it gets what was held, in order", came >= lines);
	expect("and hears that not all was", told && !stream.lost_bytes);
	expect("nothing waits then", console_waits_for(&stream) == -1);
	print_number(0);
	expect("and it goes on", read_lines(pipe_fd[0], &told) == 1);
	print_number(0);
	console_finish(&stream);
	close(pipe_fd[0]);
	print_number(1);
	expect("one that is gone, too", stream.fd < 0 && console_has_room(&stream, 1 << 30));
}

int main(void)
{
	int fd = memfd_create("console", 0);
	struct console console;
	bool within = true;
	char line[LINE + 1];

	if (write(fd, "before\n", 7) != 7)
		return 2;
	console_open(&console, CONSOLE_FILE, fd, LIMIT);
	console_write(&console, (const uint8_t *)"after\n", 6);
	expect("what was there stays",
	       pread(fd, line, 13, 0) == 13 && !memcmp(line, "before\nafter\n", 13));
	for (unsigned n = 0; n < LINES; n++) {
		snprintf(line, sizeof(line), "%*u\n", LINE - 1, n);
		console_write(&console, (const uint8_t *)line, LINE);
		within &= n % 1000 || size_of(fd) <= LIMIT;
	}
	expect("it never grows beyond its limit", within && size_of(fd) <= LIMIT);
	expect("at least its half stays", size_of(fd) >= LIMIT / 2);
	expect("what was printed last is there", is_end_of_lines(fd, LINES));
	signal(SIGPIPE, SIG_IGN);
	stopped_reader();
	return failures != 0;
}
