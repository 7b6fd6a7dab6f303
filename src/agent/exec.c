/*
 * A program for the host: with three pipes, or with a terminal of its own. It leads a session, so
 * that signals reach what it has started. When the host goes, the session is hung up.
 *
 * Its end is the program's, not that of who has inherited its pipes: what is in them by then is
 * still sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

enum { STRINGS = 1024, NOT_EXECUTABLE = 126, NOT_FOUND = 127, REST_PIECES = 64 };

struct program {
	pid_t pid;
	int pidfd, input, output, errors; /* -1: closed */
	bool has_terminal, input_ends;
	/* of what the host has sent, so much is yet to be written */
	struct line_frame frame;
	size_t held_at, held_bytes;
};

/* Of the program's own process. */
struct command { struct agent_exec head; char *argument[STRINGS + 1], *variable[STRINGS + 1]; };

static bool parse(const struct line_frame *frame, struct command *ret)
{
	size_t at = sizeof(ret->head);
	unsigned arguments = 0;
	unsigned variables = 0;
	const char *text;

	if (frame->head.bytes < sizeof(ret->head))
		return false;
	memcpy(&ret->head, frame->data, sizeof(ret->head));
	if (!ret->head.arguments || ret->head.arguments > STRINGS)
		return false;
	while ((text = line_text(frame, &at))) {
		if (arguments < ret->head.arguments)
			ret->argument[arguments++] = (char *)(uintptr_t)text;
		else if (variables < STRINGS)
			ret->variable[variables++] = (char *)(uintptr_t)text;
	}
	return arguments == ret->head.arguments;
}

/* ---- in the new process ---- */

static void become(const struct command *command)
{
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	for (unsigned n = 0; command->variable[n]; n++)
		putenv(command->variable[n]);
	if (chdir(getenv("HOME")) && chdir("/"))
		_exit(NOT_FOUND);
	/* who starts an agent in the background may have it ignore some */
	for (int number = 1; number < _NSIG; number++)
		signal(number, SIG_DFL);
	execvp(command->argument[0], command->argument);
	dprintf(STDERR_FILENO, "umbra-agent: %s: %s\n", command->argument[0], strerror(errno));
	_exit(errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* ---- starting it; 0 or -errno ---- */

static int start_with_terminal(struct program *program, const struct command *command)
{
	const struct winsize size = { .ws_row = command->head.size.rows,
				      .ws_col = command->head.size.columns };
	int terminal;

	program->pid = forkpty(&terminal, NULL, NULL, &size);
	if (!program->pid)
		become(command);
	if (program->pid < 0)
		return -errno;
	program->input = terminal;
	program->output = fcntl(terminal, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static int start_with_pipes(struct program *program, const struct command *command)
{
	int pipes[3][2];

	for (unsigned n = 0; n < 3; n++)
		if (pipe2(pipes[n], O_CLOEXEC))
			return -errno;
	program->pid = fork();
	if (!program->pid) {
		setsid();
		dup2(pipes[0][0], STDIN_FILENO);
		dup2(pipes[1][1], STDOUT_FILENO);
		dup2(pipes[2][1], STDERR_FILENO);
		become(command);
	}
	close(pipes[0][0]);
	close(pipes[1][1]);
	close(pipes[2][1]);
	program->input = pipes[0][1];
	program->output = pipes[1][0];
	program->errors = pipes[2][0];
	return program->pid < 0 ? -errno : 0;
}

static void set_flags(int fd)
{
	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int start(struct program *program, const struct command *command)
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

static void serve(int fd, struct program *program)
{
	bool ended = false;
	bool is_there = true;

	while (is_there && !ended)
		is_there = turn(fd, program, &ended);
	if (!ended) {
		kill(-program->pid, SIGHUP);
		return;
	}
	if (pass_on_rest(fd, &program->output, AGENT_OUTPUT) &&
	    pass_on_rest(fd, &program->errors, AGENT_ERRORS))
		line_write_number(fd, AGENT_EXITED, exit_code(program->pid));
}

void agent_exec(int fd, const struct line_frame *frame)
{
	static struct command command;
	static struct program program;
	int error = parse(frame, &command) ? start(&program, &command) : -EINVAL;

	if (error)
		line_write_number(fd, AGENT_FAILED, (uint32_t)-error);
	else
		serve(fd, &program);
}
