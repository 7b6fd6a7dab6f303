/*
 * A program for the host: with three pipes, or with a terminal of its own. It leads a session, so
 * that signals reach what it has started. When the host goes, the session is hung up.
 *
 * It begins in the agent's memory, which waits meanwhile: to copy that costs more than most
 * programs take. So what it becomes is made ready before, and until then it changes nothing there.
 *
 * Its end is the program's, not that of who has inherited its pipes: what is in them by then is
 * still sent.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#include "agent.h"

enum { STRINGS = 1024, NOT_EXECUTABLE = 126, NOT_FOUND = 127, REST_PIECES = 64 };
enum { DEFAULTS = 2, BEGINNING_BYTES = 64 << 10 };

struct program {
	pid_t pid;
	int pidfd, input, output, errors; /* -1: closed */
	bool has_terminal, input_ends;
	/* of what the host has sent, so much is yet to be written */
	struct line_frame frame;
	size_t held_at, held_bytes;
};

/* What it becomes: strings of the host's frame, but for those that it has not said. */
struct command {
	struct agent_exec head;
	char *argument[STRINGS + 1], *variable[DEFAULTS + STRINGS + 1];
	const char *folder;
	/* its ends, while it begins; all the same where it is a terminal */
	int input, output, errors;
};

/* One of the same name is replaced. */
static void put_variable(struct command *command, unsigned *count, const char *text)
{
	const char *end = strchr(text, '=');
	unsigned n = 0;

	if (!end)
		return;
	while (n < *count && strncmp(command->variable[n], text, (size_t)(end - text) + 1) != 0)
		n++;
	command->variable[n] = (char *)(uintptr_t)text;
	*count += n == *count;
	assert(*count <= DEFAULTS + STRINGS);
}

static bool parse(const struct line_frame *frame, struct command *ret)
{
	size_t at = sizeof(ret->head);
	unsigned arguments = 0;
	unsigned variables = 0;
	unsigned texts = 0;
	const char *text;

	*ret = (struct command){ .folder = "/" };
	if (frame->head.bytes < sizeof(ret->head))
		return false;
	memcpy(&ret->head, frame->data, sizeof(ret->head));
	if (!ret->head.arguments || ret->head.arguments > STRINGS)
		return false;
	put_variable(ret, &variables,
		     "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	put_variable(ret, &variables, "HOME=/root");
	while ((text = line_text(frame, &at))) {
		if (arguments < ret->head.arguments)
			ret->argument[arguments++] = (char *)(uintptr_t)text;
		else if (texts++ < STRINGS)
			put_variable(ret, &variables, text);
	}
	return arguments == ret->head.arguments;
}

/* ---- in the new process, whose memory is the agent's ---- */

static int take_ends(const struct command *command)
{
	if (command->head.flags & AGENT_TERMINAL)
		return login_tty(command->input);
	setsid();
	return dup2(command->input, STDIN_FILENO) < 0 ||
	       dup2(command->output, STDOUT_FILENO) < 0 ||
	       dup2(command->errors, STDERR_FILENO) < 0;
}

static int become(void *context)
{
	const struct command *command = context;

	if (take_ends(command) || (chdir(command->folder) && chdir("/")))
		_exit(NOT_FOUND);
	signal(SIGPIPE, SIG_DFL); /* the only one that the agent has changed */
	execvp(command->argument[0], command->argument);
	dprintf(STDERR_FILENO, "umbra-agent: %s: %s\n", command->argument[0], strerror(errno));
	_exit(errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* ---- starting it; 0 or -errno ---- */

/* Returns once it is another program, or has ended. */
static pid_t begin(struct command *command)
{
	static _Alignas(16) uint8_t stack[BEGINNING_BYTES];
	pid_t pid;

	/* the program is looked for by its own PATH */
	environ = command->variable;
	if (getenv("HOME"))
		command->folder = getenv("HOME");
	pid = clone(become, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, command);
	return pid < 0 ? -errno : pid;
}

static void close_all(const int *fds, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		if (fds[n] >= 0)
			close(fds[n]);
}

static int start_with_terminal(struct program *program, struct command *command)
{
	const struct winsize size = { .ws_row = command->head.size.rows,
				      .ws_col = command->head.size.columns };

	if (openpty(&program->input, &command->input, NULL, NULL, &size))
		return -errno;
	fcntl(program->input, F_SETFD, FD_CLOEXEC);
	program->output = fcntl(program->input, F_DUPFD_CLOEXEC, 0);
	program->pid = begin(command);
	close(command->input);
	return program->pid < 0 ? program->pid : 0;
}

static int start_with_pipes(struct program *program, struct command *command)
{
	int pipes[6] = { -1, -1, -1, -1, -1, -1 };

	for (unsigned n = 0; n < 6; n += 2)
		if (pipe2(pipes + n, O_CLOEXEC)) {
			close_all(pipes, 6);
			return -errno;
		}
	program->input = pipes[1];
	program->output = pipes[2];
	program->errors = pipes[4];
	command->input = pipes[0];
	command->output = pipes[3];
	command->errors = pipes[5];
	program->pid = begin(command);
	close_all((int[]){ pipes[0], pipes[3], pipes[5] }, 3);
	return program->pid < 0 ? program->pid : 0;
}

static void set_flags(int fd)
{
	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static int start(struct program *program, struct command *command)
{
	int error;

	*program = (struct program){ .pidfd = -1, .input = -1, .output = -1, .errors = -1 };
	program->has_terminal = command->head.flags & AGENT_TERMINAL;
	error = program->has_terminal ? start_with_terminal(program, command)
				      : start_with_pipes(program, command);
	if (error)
		return error;
	set_flags(program->input);
	set_flags(program->output);
	set_flags(program->errors);
	program->pidfd = (int)syscall(SYS_pidfd_open, program->pid, 0);
	return program->pidfd < 0 ? -errno : 0;
}

/* ---- while it runs ---- */

static void close_input(struct program *program)
{
	static const char end_of_file = 4;

	if (program->input < 0)
		return;
	if (program->has_terminal && write(program->input, &end_of_file, 1) == 1)
		return;
	close(program->input);
	program->input = -1;
}

static void write_input(struct program *program)
{
	ssize_t put = write(program->input, program->frame.data + program->held_at,
			    program->held_bytes);

	if (put < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (put < 0) { /* nobody reads any more: what comes is for nobody */
		close(program->input);
		program->input = -1;
		put = (ssize_t)program->held_bytes;
	}
	program->held_at += (size_t)put;
	program->held_bytes -= (size_t)put;
	if (!program->held_bytes && program->input_ends)
		close_input(program);
}

static void send_signal(const struct program *program)
{
	uint32_t number;

	memcpy(&number, program->frame.data, sizeof(number));
	if (number && number < _NSIG)
		kill(-program->pid, (int)number);
}

static void resize(const struct program *program)
{
	struct agent_size size;

	memcpy(&size, program->frame.data, sizeof(size));
	if (program->has_terminal && program->output >= 0)
		ioctl(program->output, TIOCSWINSZ,
		      &(struct winsize){ .ws_row = size.rows, .ws_col = size.columns });
}

/* False: the host is gone, or says what cannot be. */
static bool take_frame(int fd, struct program *program)
{
	if (!line_read(fd, &program->frame))
		return false;
	switch (program->frame.head.kind) {
	case AGENT_INPUT:
		if (program->input_ends)
			return false;
		program->held_at = 0;
		program->held_bytes = program->input < 0 ? 0 : program->frame.head.bytes;
		if (program->held_bytes)
			write_input(program);
		return true;
	case AGENT_INPUT_END:
		program->input_ends = true;
		close_input(program);
		return true;
	case AGENT_SIGNAL:
		if (program->frame.head.bytes != sizeof(uint32_t))
			return false;
		send_signal(program);
		return true;
	case AGENT_RESIZE:
		if (program->frame.head.bytes != sizeof(struct agent_size))
			return false;
		resize(program);
		return true;
	default: return false;
	}
}

/* One piece of what it prints. False: the host is gone. *output: -1 at its end. */
static bool pass_on(int fd, int *output, uint32_t kind, bool *ret_some)
{
	uint8_t data[AGENT_FRAME_BYTES];
	ssize_t got = *output < 0 ? 0 : read(*output, data, sizeof(data));

	*ret_some = got > 0;
	if (got > 0)
		return line_write(fd, kind, data, (size_t)got);
	if (*output >= 0 && (!got || (errno != EAGAIN && errno != EINTR))) {
		close(*output);
		*output = -1;
	}
	return true;
}

static bool pass_on_rest(int fd, int *output, uint32_t kind)
{
	bool some = true;
	bool is_there = true;

	/* more than a pipe holds is from who goes on printing */
	for (unsigned n = 0; n < REST_PIECES && some && is_there; n++)
		is_there = pass_on(fd, output, kind, &some);
	return is_there;
}

enum { HOST, INPUT, OUTPUT, ERRORS, END, POLLS };

/* False: the host is gone. */
static bool turn(int fd, struct program *program, bool *ret_ended)
{
	struct pollfd polls[POLLS] = {
		[HOST] = { .fd = fd, .events = POLLRDHUP },
		[INPUT] = { .fd = program->held_bytes ? program->input : -1, .events = POLLOUT },
		[OUTPUT] = { .fd = program->output, .events = POLLIN },
		[ERRORS] = { .fd = program->errors, .events = POLLIN },
		[END] = { .fd = program->pidfd, .events = POLLIN },
	};
	bool some;

	if (!program->held_bytes)
		polls[HOST].events |= POLLIN;
	if (poll(polls, POLLS, -1) < 0)
		return errno == EINTR;
	*ret_ended = polls[END].revents;
	if (polls[INPUT].revents)
		write_input(program);
	if (polls[OUTPUT].revents && !pass_on(fd, &program->output, AGENT_OUTPUT, &some))
		return false;
	if (polls[ERRORS].revents && !pass_on(fd, &program->errors, AGENT_ERRORS, &some))
		return false;
	if (polls[HOST].revents & POLLIN && !program->held_bytes)
		return take_frame(fd, program);
	return !(polls[HOST].revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static uint32_t exit_code(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return (uint32_t)(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* True: it has ended, and the host knows. */
static bool serve(int fd, struct program *program, bool again)
{
	struct agent_exited said = { .again = again };
	bool ended = false;
	bool is_there = true;

	while (is_there && !ended)
		is_there = turn(fd, program, &ended);
	if (!ended) {
		kill(-program->pid, SIGHUP);
		return false;
	}
	if (!pass_on_rest(fd, &program->output, AGENT_OUTPUT) ||
	    !pass_on_rest(fd, &program->errors, AGENT_ERRORS))
		return false;
	said.code = exit_code(program->pid);
	/* who does not ask for more does not know of it */
	return line_write(fd, AGENT_EXITED, &said, again ? sizeof(said) : sizeof(said.code));
}

bool agent_exec(int fd, const struct line_frame *frame)
{
	static struct command command;
	static struct program program;
	int error = parse(frame, &command) ? start(&program, &command) : -EINVAL;
	const bool again = command.head.flags & AGENT_AGAIN;
	bool is_over = false;

	if (error)
		line_write_number(fd, AGENT_FAILED, (uint32_t)-error);
	else
		is_over = serve(fd, &program, again);
	close_all((int[]){ program.input, program.output, program.errors, program.pidfd }, 4);
	return again && is_over;
}
