/* umbra demo: umbra-demo, a script (src/demo), which comes back here as umbra run. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "helper_program.h"

int verb_demo(int argc, char **argv)
{
	char path[PATH_MAX];
	char own[PATH_MAX];
	const ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);

	(void)argc;
	if (length < 0 || helper_program_find("umbra-demo", path, sizeof(path)))
		return complain(EXIT_UNUSABLE, "not beside this program", "umbra-demo",
				"build it, or install all of Umbra");
	own[length] = 0;
	if (!setenv("UMBRA", own, true))
		execv(path, argv);
	return complain(EXIT_UNUSABLE, strerror(errno), path, "it needs /bin/sh");
}
