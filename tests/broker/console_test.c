/*
 * The console's file: it never grows beyond its limit, what was printed last stays, and what was
 * there before is appended to.
 */
#include <fcntl.h>
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
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
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
	return failures != 0;
}
