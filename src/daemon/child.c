/* See child.h. */
#include "child.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNAL_CODE = 128 };

static void add_descriptors(posix_spawn_file_actions_t *actions, const struct child_plan *plan)
{
	for (int n = 0; n < 3; n++) /* in a session of its own the first becomes its terminal */
		if (plan->terminal)
			posix_spawn_file_actions_addopen(actions, n, plan->terminal, O_RDWR, 0);
		else
			posix_spawn_file_actions_adddup2(actions, plan->fd[n], n);
}

int child_spawn(const struct child_plan *plan, pid_t *ret)
{
	const int group = plan->is_session ? POSIX_SPAWN_SETSID : POSIX_SPAWN_SETPGROUP;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int error;

	assert(plan->program && plan->arguments && plan->arguments[0]);
	assert(plan->terminal ? plan->is_session
			      : plan->fd[0] >= 0 && plan->fd[1] >= 0 && plan->fd[2] >= 0);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	add_descriptors(&actions, plan);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, (short)(group | POSIX_SPAWN_SETSIGMASK));
	posix_spawnattr_setsigmask(&attributes, &none);
	error = posix_spawn(ret, plan->program, &actions, &attributes, plan->arguments, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

int child_exit_code(int status)
{
	assert(WIFEXITED(status) || WIFSIGNALED(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNAL_CODE + WTERMSIG(status);
}
