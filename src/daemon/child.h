/* A program that the daemon starts: where its descriptors come from, and how it has ended. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct child_plan {
	const char *program;
	char *const *arguments; /* ended by NULL */
	bool is_session; /* one of its own, or else a process group */
	const char *terminal; /* opened by it, as all three; NULL: these are its descriptors */
	int fd[3];
};

/* No signal is blocked in it. 0 or -errno. */
int child_spawn(const struct child_plan *plan, pid_t *ret);
/* Of what waitpid() says: its exit code; 128 and the number of the signal that ended it. */
int child_exit_code(int status);
