/* See mcp_run.h. */
#include "mcp_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { INPUT, OUTPUT, ERRORS, PIPES };
enum { WORDS = 1024, PIECE_BYTES = 1 << 16, MS_PER_S = 1000, NS_PER_MS = 1000000 };
enum { SIGNAL_EXIT = 128, EXIT_MASK = 0xff };

struct running {
	pid_t pid;
	int pipe[PIPES]; /* ends here; -1: closed */
	const char *input;
	size_t input_left;
	size_t output_most_bytes;
	uint64_t end_ms;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * MS_PER_S + (uint64_t)(now.tv_nsec / NS_PER_MS);
}

static void close_end(int *end)
{
	if (*end >= 0)
		close(*end);
	*end = -1;
}

/* ---- to begin ---- */

static int spawn(const struct mcp_run *run, const int theirs[PIPES], pid_t *ret)
{
	const char *words[WORDS] = { "umbra" };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults;
	int error;

	for (size_t n = 0; run->words[n]; n++) {
		if (n + 2 == WORDS)
			return -E2BIG;
		words[n + 1] = run->words[n];
	}
	posix_spawn_file_actions_init(&actions);
	for (int n = 0; n < PIPES; n++)
		posix_spawn_file_actions_adddup2(&actions, theirs[n], n);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	error = posix_spawn(ret, "/proc/self/exe", &actions, &attributes,
			    (char *const *)(uintptr_t)words, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

static int make_pipes(int ours[PIPES], int theirs[PIPES])
{
	for (unsigned n = 0; n < PIPES; n++) {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC))
			return -errno;
		ours[n] = ends[n != INPUT ? 0 : 1];
		theirs[n] = ends[n != INPUT ? 1 : 0];
		fcntl(ours[n], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

static int begin(const struct mcp_run *run, struct running *running)
{
	int theirs[PIPES] = { -1, -1, -1 };
	int error;

	*running = (struct running){ .pipe = { -1, -1, -1 },
				     .input = run->input,
				     .input_left = run->input_bytes,
				     .output_most_bytes = run->output_most_bytes,
				     .end_ms = now_ms() + (uint64_t)run->seconds * MS_PER_S };
	error = make_pipes(running->pipe, theirs);
	if (!error)
		error = spawn(run, theirs, &running->pid);
	for (unsigned n = 0; n < PIPES; n++) {
		close_end(&theirs[n]);
		if (error)
			close_end(&running->pipe[n]);
	}
	return error;
}

/* ---- meanwhile ---- */

static void give_input(struct running *running)
{
	ssize_t put = write(running->pipe[INPUT], running->input, running->input_left);

	if (put > 0) {
		running->input += put;
		running->input_left -= (size_t)put;
	} else if (errno != EAGAIN && errno != EINTR) {
		running->input_left = 0; /* it reads no more */
	}
}

/* What fits of a piece. */
static void keep(struct mcp_said *said, char *to, size_t *used, size_t most, const char *data,
		 size_t bytes)
{
	size_t room = most - *used;
	size_t taken = bytes < room ? bytes : room;

	memcpy(to + *used, data, taken);
	*used += taken;
	said->is_cut |= taken < bytes;
}

static void take(struct running *running, unsigned which, struct mcp_said *said)
{
	char piece[PIECE_BYTES];
	ssize_t got = read(running->pipe[which], piece, sizeof(piece));

	if (!got || (got < 0 && errno != EAGAIN && errno != EINTR))
		close_end(&running->pipe[which]);
	if (got <= 0)
		return;
	if (which == OUTPUT)
		keep(said, said->output, &said->output_bytes, running->output_most_bytes, piece,
		     (size_t)got);
	else
		keep(said, said->errors, &said->error_bytes, MCP_ERROR_BYTES - 1, piece,
		     (size_t)got);
}

/* False: its time is over. */
static bool turn(struct running *running, struct mcp_said *said)
{
	struct pollfd fds[PIPES];
	uint64_t now = now_ms();

	if (now >= running->end_ms)
		return false;
	if (!running->input_left)
		close_end(&running->pipe[INPUT]);
	for (unsigned n = 0; n < PIPES; n++)
		fds[n] = (struct pollfd){ running->pipe[n], n == INPUT ? POLLOUT : POLLIN, 0 };
	if (poll(fds, PIPES, (int)(running->end_ms - now)) <= 0)
		return true;
	if (fds[INPUT].revents)
		give_input(running);
	for (unsigned n = OUTPUT; n < PIPES; n++)
		if (fds[n].revents)
			take(running, n, said);
	return true;
}

static int code_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) & EXIT_MASK : SIGNAL_EXIT + WTERMSIG(status);
}

int mcp_run(const struct mcp_run *run, struct mcp_said *ret)
{
	struct running running;
	int status = 0;
	int error;

	*ret = (struct mcp_said){ .output = malloc(run->output_most_bytes + 1) };
	error = ret->output ? begin(run, &running) : -ENOMEM;
	if (error) {
		free(ret->output);
		ret->output = NULL;
		return error;
	}
	while (running.pipe[OUTPUT] >= 0 || running.pipe[ERRORS] >= 0)
		if (!turn(&running, ret)) {
			ret->is_late = true;
			kill(running.pid, SIGKILL);
			break;
		}
	for (unsigned n = 0; n < PIPES; n++)
		close_end(&running.pipe[n]);
	while (waitpid(running.pid, &status, 0) < 0 && errno == EINTR)
		;
	ret->code = code_of(status);
	ret->output[ret->output_bytes] = 0;
	ret->errors[ret->error_bytes] = 0;
	return 0;
}
