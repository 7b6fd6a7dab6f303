/* See helper_program.h. */
#include "helper_program.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

enum { WORDS = 64 };

int helper_program_find(const char *name, char *path, size_t bytes)
{
	/* the second: in a build's folder, by the folder of its sources */
	static const char *const places[] = { "", "src/agent/", "src/builder/", "src/wire/",
					      "src/demo/", "../lib/umbra/" };
	char own[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
	char *slash;

	if (length < 0)
		return -errno;
	own[length] = 0;
	slash = strrchr(own, '/');
	for (size_t n = 0; n < sizeof(places) / sizeof(places[0]); n++) {
		int used = snprintf(path, bytes, "%.*s%s%s", (int)(slash - own + 1), own,
				    places[n], name);

		if (used < 0 || (size_t)used >= bytes)
			return -ENAMETOOLONG;
		if (!access(path, R_OK | X_OK))
			return 0;
	}
	return -ENOENT;
}

int helper_builder_run(const char *const *words)
{
	static char *const nothing[] = { NULL };
	char path[PATH_MAX];
	const char *arguments[WORDS] = { "umbra-builder" };
	int status = 0;
	pid_t child;

	for (unsigned n = 0; words[n]; n++) {
		if (n + 2 == WORDS)
			return complain(EXIT_USAGE, "too many", words[n], "leave some out");
		arguments[n + 1] = words[n];
	}
	if (helper_program_find("umbra-builder", path, sizeof(path)) ||
	    posix_spawn(&child, path, NULL, NULL, (char *const *)(uintptr_t)arguments, nothing))
		return complain(EXIT_UNUSABLE, "not beside this program", "umbra-builder",
				"build it, or install all of Umbra");
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAULT;
}
