/*
 * umbra exec: a program in a machine, by the machine's agent, with this process's input, output and
 * errors, its signals or its terminal. It ends as the program ends.
 *
 * What the guest prints on a terminal goes through the filter that its console goes through.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent_line.h"
#include "cli.h"
#include "option.h"
#include "reader.h"
#include "process/terminal.h"
#include "process/terminal_filter.h"

static const char exec_help[] =
	"usage: umbra exec [-t|-T] [--wait SECONDS] [--env NAME=VALUE]... NAME [--] COMMAND "
	"[ARGUMENT]...\n"
	"Runs a program in the machine NAME, with this one's input, output and errors, and ends "
	"as it ends: with its code, or 128 and the\n"
	"number of the signal that ended it; with 126 or 127 where it cannot be executed. It needs "
	"umbra-agent in the guest.\n"
	"-t gives it a terminal, -T none; without either it has one when input and output are "
	"terminals here.\n"
	"--wait asks again for so long while no agent answers: as the guest boots, or is too busy "
	"to look within five seconds.\n";

enum { VARIABLES = 64, SIGNAL_EXIT = 128, WAIT_MOST_SECONDS = 86400 };

/* One of its outputs here; error: 0, or -errno of when nobody took it any more. */
struct output { int fd, error; bool is_filtered; struct terminal_filter filter; };

struct exec {
	struct agent_line line;
	struct agent_said said;
	struct terminal terminal;
	struct output output, errors;
	int signals;
	bool has_terminal, input_ended;
	unsigned wait_seconds; /* for an agent */
	/* A frame that is on its way: the program may have to be heard before it is taken. */
	struct { struct agent_frame head; uint8_t data[AGENT_FRAME_BYTES]; } frame;
	size_t sent_bytes, frame_bytes;
	const char *variable[VARIABLES];
	unsigned variables;
};

/* ---- what is said ---- */

static struct agent_size terminal_size(void)
{
	struct winsize size = { .ws_row = 0 };

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	return (struct agent_size){ .rows = size.ws_row, .columns = size.ws_col };
}

/* False: no room. */
static bool add_text(uint8_t data[AGENT_FRAME_BYTES], size_t *used, const char *text)
{
	size_t bytes = strlen(text) + 1;

	if (bytes > AGENT_FRAME_BYTES - *used)
		return false;
	memcpy(data + *used, text, bytes);
	*used += bytes;
	return true;
}

static int say_exec(struct exec *exec, char **arguments, int count)
{
	const struct agent_exec head = { .flags = AGENT_AGAIN |
						  (exec->has_terminal ? AGENT_TERMINAL : 0),
					 .arguments = (uint32_t)count,
					 .size = terminal_size() };
	uint8_t data[AGENT_FRAME_BYTES];
	size_t used = sizeof(head);
	char term[128];
	bool fits = true;

	memcpy(data, &head, sizeof(head));
	for (int n = 0; n < count; n++)
		fits &= add_text(data, &used, arguments[n]);
	snprintf(term, sizeof(term), "TERM=%s", getenv("TERM") ? getenv("TERM") : "dumb");
	if (exec->has_terminal)
		fits &= add_text(data, &used, term);
	for (unsigned n = 0; n < exec->variables; n++)
		fits &= add_text(data, &used, exec->variable[n]);
	return fits ? agent_say(&exec->line, AGENT_EXEC, data, used) : -E2BIG;
}

/* As much of it as goes without waiting. */
static int send_frame(struct exec *exec)
{
	const uint8_t *from = (const uint8_t *)&exec->frame + exec->sent_bytes;
	ssize_t sent = send(exec->line.fd, from, exec->frame_bytes - exec->sent_bytes,
			    MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	exec->sent_bytes += (size_t)sent;
	if (exec->sent_bytes == exec->frame_bytes)
		exec->sent_bytes = exec->frame_bytes = 0;
	return 0;
}

/* The one before has been sent. Its data are in exec->frame already, or here. */
static int begin_frame(struct exec *exec, uint32_t kind, const void *data, size_t bytes)
{
	exec->frame.head = (struct agent_frame){ .kind = kind, .bytes = (uint32_t)bytes };
	if (data)
		memcpy(exec->frame.data, data, bytes);
	exec->frame_bytes = sizeof(exec->frame.head) + bytes;
	return send_frame(exec);
}

static int take_input(struct exec *exec)
{
	ssize_t got = read(STDIN_FILENO, exec->frame.data, sizeof(exec->frame.data));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (got > 0)
		return begin_frame(exec, AGENT_INPUT, NULL, (size_t)got);
	exec->input_ended = true;
	return begin_frame(exec, AGENT_INPUT_END, NULL, 0);
}

static int take_signal(struct exec *exec, int *ret_code)
{
	struct signalfd_siginfo info;
	struct agent_size size = terminal_size();

	if (read(exec->signals, &info, sizeof(info)) != sizeof(info))
		return 0;
	/* who takes nothing would not take a signal either: the end of the line ends it */
	if (exec->frame_bytes) {
		*ret_code = SIGNAL_EXIT + (int)info.ssi_signo;
		return info.ssi_signo != SIGWINCH;
	}
	if (info.ssi_signo == SIGWINCH)
		return exec->has_terminal
			       ? begin_frame(exec, AGENT_RESIZE, &size, sizeof(size))
			       : 0;
	return begin_frame(exec, AGENT_SIGNAL, &info.ssi_signo, sizeof(info.ssi_signo));
}

/* ---- what is heard ---- */

static int put(struct output *output, const uint8_t *data, size_t bytes)
{
	uint8_t filtered[AGENT_FRAME_BYTES + FILTER_TOKEN_BYTES];

	if (output->is_filtered) {
		bytes = terminal_filter(&output->filter, data, bytes, filtered);
		data = filtered;
	}
	while (bytes) {
		ssize_t written = write(output->fd, data, bytes);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return output->error = -errno;
		data += written;
		bytes -= (size_t)written;
	}
	return 0;
}

/* 1: it has ended, with *ret_code; 0; -errno. */
static int obey(struct exec *exec, int *ret_code)
{
	const struct agent_said *said = &exec->said;
	uint32_t code;

	switch (said->kind) {
	case AGENT_OUTPUT: return put(&exec->output, said->data, said->bytes);
	case AGENT_ERRORS: return put(&exec->errors, said->data, said->bytes);
	case AGENT_FAILED: return agent_failure(said);
	case AGENT_EXITED:
		if (said->bytes != sizeof(code) && said->bytes != sizeof(struct agent_exited))
			return -EPROTO;
		memcpy(&code, said->data, sizeof(code));
		*ret_code = code & 0xff;
		return 1;
	default: return -EPROTO;
	}
}

static int take_frames(struct exec *exec, int *ret_code)
{
	int ended = agent_receive(&exec->line);
	int got = 0;

	/* what came before the end counts */
	while ((got = agent_next(&exec->line, &exec->said)) > 0) {
		int error = obey(exec, ret_code);

		if (error)
			return error;
	}
	return got ? got : ended;
}

static int turn(struct exec *exec, int *ret_code)
{
	const bool is_sending = exec->frame_bytes;
	struct pollfd polls[] = {
		{ .fd = exec->line.fd, .events = (short)(POLLIN | (is_sending ? POLLOUT : 0)) },
		{ .fd = exec->signals, .events = POLLIN },
		{ .fd = exec->input_ended || is_sending ? -1 : STDIN_FILENO, .events = POLLIN },
	};
	int got = 0;

	if (poll(polls, 3, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	if (polls[0].revents & ~POLLOUT)
		got = take_frames(exec, ret_code);
	if (!got && is_sending && polls[0].revents & POLLOUT)
		got = send_frame(exec);
	if (!got && polls[1].revents)
		got = take_signal(exec, ret_code);
	else if (!got && polls[2].revents)
		got = take_input(exec);
	return got;
}

/* ---- the verb ---- */

static int take_signals(void)
{
	static const int numbers[] = { SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
				       SIGUSR1, SIGUSR2, SIGWINCH };
	sigset_t set;

	sigemptyset(&set);
	for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++)
		sigaddset(&set, numbers[n]);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The terminal in the guest makes lines of what is printed; this one shall not do so again. */
static void make_raw(struct terminal *terminal)
{
	struct termios now;

	terminal_make_raw(terminal);
	if (tcgetattr(STDIN_FILENO, &now))
		return;
	now.c_oflag &= ~(tcflag_t)OPOST;
	tcsetattr(STDIN_FILENO, TCSANOW, &now);
}

/* Of what went wrong with this command's own output; who reads no more need not be told. */
static int output_failed(int error)
{
	if (error != -EPIPE)
		return complain(EXIT_UNUSABLE, strerror(-error), "what the program prints",
				"have it go where there is room");
	return READER_GONE;
}

static int run(struct exec *exec, const char *machine, char **arguments, int count)
{
	int code = 0;
	int got = agent_connect(machine, exec->wait_seconds, &exec->line);

	if (got)
		return agent_complain(machine, got);
	exec->signals = take_signals();
	exec->output = (struct output){ .fd = STDOUT_FILENO, .is_filtered = isatty(STDOUT_FILENO) };
	exec->errors = (struct output){ .fd = STDERR_FILENO, .is_filtered = isatty(STDERR_FILENO) };
	got = say_exec(exec, arguments, count);
	if (!got && exec->has_terminal)
		make_raw(&exec->terminal);
	while (!got)
		got = turn(exec, &code);
	terminal_restore(&exec->terminal);
	agent_close(&exec->line);
	if (exec->output.error || exec->errors.error)
		return output_failed(exec->output.error ? exec->output.error : exec->errors.error);
	return got > 0 ? code : agent_complain(machine, got);
}

static int take_variable(struct exec *exec, const char *text)
{
	if (!strchr(text, '=') || exec->variables == VARIABLES)
		return complain(EXIT_USAGE, "not a variable, or too many", text,
				"say --env NAME=VALUE");
	exec->variable[exec->variables++] = text;
	return 0;
}

int verb_exec(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "env", 1, 0, 'e' },
		{ "tty", 0, 0, 't' },
		{ "wait", 1, 0, 'w' },
		{ "help", 0, 0, 'h' },
		{ 0 },
	};
	static struct exec exec;
	int code = 0;
	int option;

	exec.has_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	/* the program's own options are its own */
	while (!code && (option = option_of_verb(argv[0], argc, argv, "+e:tTh", longs)) != -1)
		switch (option) {
		case 'e': code = take_variable(&exec, optarg); break;
		case 't': exec.has_terminal = true; break;
		case 'T': exec.has_terminal = false; break;
		case 'w': code = option_wait(optarg, WAIT_MOST_SECONDS, &exec.wait_seconds); break;
		case 'h': fputs(exec_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (code)
		return code;
	if (argc - optind > 2 && !strcmp(argv[optind + 1], "--")) {
		argv[optind + 1] = argv[optind];
		optind++;
	}
	if (argc - optind < 2)
		return complain(EXIT_USAGE,
				argc > optind ? "no program given"
					      : "no machine and program given", "exec",
				"say umbra exec NAME -- COMMAND");
	return run(&exec, argv[optind], argv + optind + 1, argc - optind - 1);
}
