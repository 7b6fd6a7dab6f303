/*
 * umbra console: what a machine with a name has printed last, and what it prints from now on, from
 * the file that its console goes to. As many readers as there are; a terminal gets it through the
 * filter that a machine's own console goes through.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "control/machine_control.h"
#include "control/names.h"
#include "keyboard_line.h"
#include "option.h"
#include "reader.h"
#include "process/terminal_filter.h"

static const char console_help[] =
	"usage: umbra console [--once] NAME\n"
	"       umbra console --keyboard NAME [TEXT]\n"
	"Prints the last 64 KiB of the console of a machine that was run with --detach, or with "
	"--name and --console FILE,\n"
	"and what comes, until the machine ends or Ctrl-C; --once: only what is there.\n"
	"--keyboard types TEXT, or what comes here until Ctrl-], as on a US keyboard: for a guest "
	"with the driver hyperv_keyboard,\n"
	"whose screen umbra screenshot shows.\n";

enum { LAST_BYTES = 64 << 10, PIECE_BYTES = 8192, PAUSE_MS = 200 };
enum { ANSWER_BYTES = CONTROL_OUT_BYTES };

struct reader {
	int file, machine; /* a connection that ends with the machine */
	off_t at;
	bool is_filtered;
	struct terminal_filter filter;
};

/* What it says about itself; the connection stays. NULL: none. */
static json_t *ask(int fd)
{
	static const char question[] = "{\"id\":1,\"do\":\"info\"}\n";
	char answer[ANSWER_BYTES];
	size_t used = 0;
	ssize_t got = 1;

	if (write(fd, question, strlen(question)) != (ssize_t)strlen(question))
		return NULL;
	while (got > 0 && used < sizeof(answer) && !memchr(answer, '\n', used)) {
		got = read(fd, answer + used, sizeof(answer) - used);
		used += got > 0 ? (size_t)got : 0;
	}
	return json_loadb(answer, used, 0, NULL);
}

static int open_console(struct reader *reader)
{
	json_t *answer = ask(reader->machine);
	const char *path =
		json_string_value(json_object_get(json_object_get(answer, "machine"), "console"));
	struct stat st;

	reader->file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	json_decref(answer);
	if (reader->file < 0 || fstat(reader->file, &st))
		return -ENOENT;
	reader->at = st.st_size > LAST_BYTES ? st.st_size - LAST_BYTES : 0;
	return 0;
}

static void put(struct reader *reader, const uint8_t *data, size_t bytes)
{
	uint8_t filtered[PIECE_BYTES + FILTER_TOKEN_BYTES];

	if (reader->is_filtered) {
		bytes = terminal_filter(&reader->filter, data, bytes, filtered);
		data = filtered;
	}
	fwrite(data, 1, bytes, stdout);
}

/* All that is there. The file gets shorter when it is full: what is left is its newer half. */
static void read_on(struct reader *reader)
{
	uint8_t piece[PIECE_BYTES];
	struct stat st;
	ssize_t got;

	if (!fstat(reader->file, &st) && st.st_size < reader->at)
		reader->at = st.st_size;
	while ((got = pread(reader->file, piece, sizeof(piece), reader->at)) > 0) {
		reader->at += got;
		put(reader, piece, (size_t)got);
	}
	fflush(stdout);
}

static int follow(const char *name, bool once)
{
	struct reader reader = { .machine = name_connect(name),
				 .is_filtered = isatty(STDOUT_FILENO) };
	/* of standard output, that whoever reads it is gone */
	struct pollfd polls[] = { { .fd = reader.machine, .events = POLLIN },
				  { .fd = STDOUT_FILENO } };
	bool runs = !once;

	if (reader.machine < 0)
		return complain(EXIT_UNUSABLE, "no machine of that name runs", name,
				"umbra ps lists those that do");
	if (open_console(&reader))
		return complain(EXIT_UNUSABLE, "its console goes to no file", name,
				"run it with --detach, or with --console FILE");
	read_on(&reader);
	while (runs && !ferror(stdout)) {
		poll(polls, 2, PAUSE_MS);
		if (polls[1].revents & (POLLERR | POLLHUP))
			return READER_GONE;
		runs = !polls[0].revents;
		read_on(&reader);
	}
	return 0;
}

int verb_console(int argc, char **argv)
{
	static const struct option longs[] = { { "once", 0, 0, 'o' },
					       { "keyboard", 0, 0, 'k' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	bool once = false;
	bool types = false;
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'o': once = true; break;
		case 'k': types = true; break;
		case 'h': fputs(console_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (argc - optind < 1 || argc - optind > 1 + types)
		return complain(EXIT_USAGE, "wrong number of arguments", "console",
				"see umbra console --help");
	if (types)
		return keyboard_line(argv[optind], argv[optind + 1]);
	return follow(argv[optind], once);
}
