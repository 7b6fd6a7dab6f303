/* umbra: the command. One verb a function; an error is one line on stderr: what, where, remedy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "process/mains.h"
#include "version.h"

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

int main(int argc, char **argv)
{
	static const char role[] = "--role=";

	if (argc == 2 && !strncmp(argv[1], role, strlen(role)))
		return process_main(argv[1] + strlen(role));
	if (argc >= 2 && !strcmp(argv[1], "run"))
		return verb_run(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "disk"))
		return verb_disk(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "image"))
		return verb_image(argc - 1, argv + 1);
	if (argc >= 2 && is_running_verb(argv[1]))
		return verb_running(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "save"))
		return verb_save(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "fork"))
		return verb_fork(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "exec"))
		return verb_exec(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "console"))
		return verb_console(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "cp"))
		return verb_copy(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "bus"))
		return verb_bus(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "doctor"))
		return verb_doctor(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "--version")) {
		printf("umbra %s, commit %s\n", UMBRA_VERSION, umbra_commit);
		return 0;
	}
	if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
		printf("usage: umbra run --kernel FILE ... "
		       "| umbra ps, info, stop, kill, pause, resume, memory, save ... "
		       "| umbra exec, cp, console ... | umbra fork ... | umbra bus ... "
		       "| umbra disk VERB ... "
		       "| umbra image VERB ... | umbra doctor\n"
		       "See umbra run --help, umbra ps --help, umbra exec --help, "
		       "umbra fork --help, "
		       "umbra disk --help, "
		       "umbra image --help.\n");
		return 0;
	}
	return complain(EXIT_USAGE, "no such verb", argc >= 2 ? argv[1] : "umbra",
			"use run, ps, info, stop, kill, pause, save, exec, cp, console, fork, bus, "
			"disk, image or doctor");
}
