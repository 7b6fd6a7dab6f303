/* umbra: the command. One verb a function; an error is one line on stderr: what, where, remedy. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "process/mains.h"
#include "reader.h"
#include "verbs.h"
#include "version.h"

enum { REMEDY_BYTES = 512 };

#ifdef __SANITIZE_ADDRESS__
/*
 * The processes of a machine have no environment to be told by: the engine takes the fault signals
 * itself, and leaks are not looked for in a process that may not even open /proc.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:detect_stack_use_after_return=0:use_madv_dontdump=0:handle_segv=0:"
	       "handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:use_sigaltstack=0";
}
#endif

/* Whoever closed one of the three would have the next socket, or disk, in its place. */
static void open_standard_files(void)
{
	int fd = open("/dev/null", O_RDWR);

	while (fd >= 0 && fd <= STDERR_FILENO)
		fd = open("/dev/null", O_RDWR);
	if (fd >= 0)
		close(fd);
}

/* What was printed is out, or the verb has failed. */
static int end_output(int code)
{
	const bool had_failed = ferror(stdout);
	const bool fails = fflush(stdout) || had_failed;

	if (!fails || code == READER_GONE)
		return code;
	complain(EXIT_UNUSABLE, strerror(had_failed ? EIO : errno), "standard output",
		 "have it go where there is room");
	return code ? code : EXIT_UNUSABLE;
}

static int no_such_verb(const char *name)
{
	char remedy[REMEDY_BYTES];
	char *names = verbs_names();

	snprintf(remedy, sizeof(remedy), "use one of %s", names ? names : "umbra --help");
	free(names);
	return complain(EXIT_USAGE, "no such verb", name, remedy);
}

int main(int argc, char **argv)
{
	static const char role[] = "--role=";
	const struct verb *verb;

	if (argc == 2 && !strncmp(argv[1], role, strlen(role)))
		return process_main(argv[1] + strlen(role));
	open_standard_files();
	if (argc >= 2 && (verb = verb_find(argv[1])))
		return end_output(verb->run(argc - 1, argv + 1));
	if (argc >= 2 && !strcmp(argv[1], "--version")) {
		printf("umbra %s, commit %s\n", UMBRA_VERSION, umbra_commit);
		return end_output(0);
	}
	if (argc >= 2 && !strcmp(argv[1], "--verbs")) { /* for tools/completion */
		verbs_print();
		return 0;
	}
	if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
		printf("usage: umbra VERB ...; umbra VERB --help says more\n");
		verbs_print_help();
		return end_output(0);
	}
	if (argc < 2)
		return complain(EXIT_USAGE, "no verb given", "umbra", "see umbra --help");
	return no_such_verb(argv[1]);
}
