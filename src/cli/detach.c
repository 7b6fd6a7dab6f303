/* See detach.h. */
#include "detach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "control/names.h"

enum { LOG_PATH_BYTES = 256, PIECE_BYTES = 4096 };

/* Once every process of it is there, and locked down, and what it begins with is loaded. */
static bool machine_answers(const char *name)
{
	static const char question[] = "{\"id\":1,\"do\":\"registers\"}\n";
	int fd = name_connect(name);
	bool answers = fd >= 0 &&
		       send(fd, question, strlen(question), MSG_NOSIGNAL) > 0;
	char byte;

	answers = answers && read(fd, &byte, 1) == 1;
	if (fd >= 0)
		close(fd);
	return answers;
}

static void print_log(const char *name)
{
	char path[LOG_PATH_BYTES];
	char piece[PIECE_BYTES];
	ssize_t got;
	int fd = name_log_path(name, path, sizeof(path))
			 ? -1
			 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	while (fd >= 0 && (got = read(fd, piece, sizeof(piece))) > 0)
		fwrite(piece, 1, (size_t)got, stderr);
	if (fd >= 0)
		close(fd);
}

/* *is_broker: it has said all that it says itself. */
static int end_of(pid_t child, const char *name, bool is_broker)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (is_broker)
		print_log(name);
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAULT;
}

bool detach_begin(const char *name, struct detach *ret, int *ret_code)
{
	int told[2];
	bool is_broker;
	char byte;
	pid_t child = pipe2(told, O_CLOEXEC) ? -1 : fork();

	if (child < 0) {
		*ret_code = complain(EXIT_FAULT, strerror(errno), "--detach", "try again");
		return false;
	}
	if (!child) {
		setsid();
		close(told[0]);
		*ret = (struct detach){ .name = name, .told = told[1] };
		return true;
	}
	close(told[1]);
	is_broker = read(told[0], &byte, 1) == 1;
	close(told[0]);
	*ret_code = is_broker && machine_answers(name) ? 0 : end_of(child, name, is_broker);
	return false;
}

void detach_forget(const char *name)
{
	char path[LOG_PATH_BYTES];

	if (!name_log_path(name, path, sizeof(path)))
		unlink(path);
}

int detach_open_log(const char *name)
{
	char path[LOG_PATH_BYTES];
	const int error = name_log_path(name, path, sizeof(path));
	int log;

	if (error)
		return error;
	log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	return log < 0 ? -errno : log;
}

int detach_wait(const char *name, int broker_pidfd)
{
	struct pollfd broker = { .fd = broker_pidfd, .events = POLLIN };

	if (machine_answers(name))
		return 0;
	while (poll(&broker, 1, -1) < 0 && errno == EINTR)
		;
	print_log(name);
	return EXIT_UNUSABLE;
}

int detach_finish(const struct detach *detach)
{
	int log = detach_open_log(detach->name);
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (log < 0 || nothing < 0)
		return complain(EXIT_UNUSABLE, strerror(log < 0 ? -log : errno), detach->name,
				"see umbra run --help");
	if (write(detach->told, "", 1) != 1)
		return EXIT_FAULT;
	dup2(nothing, STDIN_FILENO);
	dup2(nothing, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	return 0;
}
