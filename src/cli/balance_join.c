/* See balance_join.h. */
#include "balance_join.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/lockdown.h"
#include "ipc/spawn.h"
#include "control/names.h"
#include "process/sanitized.h"

enum { PATH_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path), ANSWER_S = 5, BACKLOG = 16 };
/* As of who joins the hub: one that ends again soon is joined again later, and later each time. */
enum { FIRST_DELAY_MS = 20, MOST_DELAY_MS = 5000, LONG_LIFE_S = 10, FIRST_KEPT_FD = 200 };

static int open_socket(struct sockaddr_un *ret_at, int *ret_folder)
{
	int fd;

	*ret_at = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_folder = name_balancer_path(ret_at->sun_path, sizeof(ret_at->sun_path));
	if (*ret_folder < 0)
		return *ret_folder;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		return fd;
	close(*ret_folder);
	return -errno;
}

static int try_connect(int fd, const struct sockaddr_un *at)
{
	return connect(fd, (const struct sockaddr *)at, sizeof(*at)) ? -errno : 0;
}

int balance_connect(void)
{
	struct sockaddr_un at;
	int folder;
	int fd = open_socket(&at, &folder);
	int error = fd < 0 ? fd : try_connect(fd, &at);

	if (fd < 0)
		return fd;
	close(folder);
	if (!error)
		return fd;
	close(fd);
	return error == -ECONNREFUSED ? -ENOENT : error;
}

/* has_rights, here and below: who has given them up has it at its number. */
static int program(bool has_rights)
{
	const int kept = fcntl(grant_fd(GRANT_PROGRAM), F_GETFD);

	return !has_rights && kept >= 0 ? grant_fd(GRANT_PROGRAM) : spawn_open_program();
}

/* In a process of its own, which ends: it belongs to no machine, and to no terminal. */
static void begin(int listener, bool has_rights)
{
	struct spawned spawned;
	struct grants grants;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	grants_clear(&grants);
	grants.fd[GRANT_PROGRAM] = program(has_rights);
	grants.fd[GRANT_CONTROL] = listener;
	if (!has_rights && role_was_given(GRANT_ROOT))
		grants.fd[GRANT_ROOT] = grant_fd(GRANT_ROOT);
	setsid();
	dup2(null, STDERR_FILENO);
	_exit(spawn_role(ROLE_BALANCER, &grants, -1, &spawned) != 0);
}

/* With the folder locked: of two that find none, one starts it. */
static int start(const struct sockaddr_un *at, bool has_rights)
{
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int status = 0;
	pid_t pid;

	if (listener < 0)
		return -errno;
	unlink(at->sun_path);
	if (bind(listener, (const struct sockaddr *)at, sizeof(*at)) || listen(listener, BACKLOG)) {
		status = -errno;
		close(listener);
		return status;
	}
	pid = fork();
	if (!pid)
		begin(listener, has_rights);
	close(listener);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return status ? -EAGAIN : 0;
}

static int connect_or_start(bool has_rights)
{
	struct sockaddr_un at;
	int folder;
	int fd = open_socket(&at, &folder);
	int error = fd < 0 ? fd : try_connect(fd, &at);

	if (fd < 0)
		return fd;
	if ((error == -ENOENT || error == -ECONNREFUSED) && !flock(folder, LOCK_EX)) {
		error = try_connect(fd, &at);
		if (error == -ENOENT || error == -ECONNREFUSED)
			error = start(&at, has_rights) ?: try_connect(fd, &at);
	}
	close(folder);
	if (!error)
		return fd;
	close(fd);
	return error;
}

/* Whatever the balancer says there, it can only advise (control/machine_control.h). */
static int narrow(int machine)
{
	static const char line[] = "{\"id\":0,\"do\":\"narrow\"}\n";

	/* not answered before the machine is there; what the balancer says comes after it */
	return send(machine, line, sizeof(line) - 1, MSG_NOSIGNAL) == sizeof(line) - 1 ? 0 : -errno;
}

/* 0 once it has it. */
static int bring(int balancer, int machine)
{
	static const char join[] = "{\"id\":1,\"do\":\"join\"}\n";
	const struct timeval patience = { .tv_sec = ANSWER_S };
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} ancillary = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec vector = { .iov_base = (void *)(unsigned long)join,
				.iov_len = sizeof(join) - 1 };
	const struct msghdr message = { .msg_iov = &vector,
					.msg_iovlen = 1,
					.msg_control = &ancillary,
					.msg_controllen = sizeof(ancillary) };
	char answer[256] = "";
	ssize_t got;

	memcpy(CMSG_DATA(&ancillary.head), &machine, sizeof(machine));
	setsockopt(balancer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (sendmsg(balancer, &message, MSG_NOSIGNAL) < 0)
		return -errno;
	got = recv(balancer, answer, sizeof(answer) - 1, 0);
	if (got <= 0)
		return got ? -errno : -EPIPE;
	return strstr(answer, "\"ok\":true") ? 0 : -ENOSPC;
}

/* The connection on which it was brought, which stays as long as that balancer; -errno. */
static int bring_to_one(int machine, bool has_rights)
{
	const int balancer = connect_or_start(has_rights);
	const int error = balancer < 0 ? balancer : bring(balancer, machine);

	if (!error)
		return balancer;
	if (balancer >= 0)
		close(balancer);
	return error;
}

/* One that ends just then has taken the connection, and nothing else: the next has the machine. */
static int join_once(const char *name, bool has_rights)
{
	int machine = name_connect(name);
	int line = machine < 0 ? machine : narrow(machine);

	if (!line)
		line = bring_to_one(machine, has_rights);
	if (line == -EPIPE || line == -ECONNRESET)
		line = bring_to_one(machine, has_rights);
	if (machine >= 0)
		close(machine);
	return line;
}

/* ---- joining again ---- */

/* False: the broker has ended. line -1: there is none to wait for. */
static bool wait_for_end(int broker, int line, int timeout_ms)
{
	struct pollfd polls[] = { { .fd = broker, .events = POLLIN },
				  { .fd = line, .events = POLLIN } };

	while (poll(polls, 2, timeout_ms) < 0 && errno == EINTR)
		;
	return !polls[0].revents;
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void stay(const char *name, int broker, int line)
{
	int delay_ms = FIRST_DELAY_MS;

	for (;;) {
		const time_t begun_s = now_s();

		if (line >= 0 && !wait_for_end(broker, line, -1))
			return;
		if (line >= 0)
			close(line);
		if (now_s() - begun_s >= LONG_LIFE_S)
			delay_ms = FIRST_DELAY_MS;
		if (!wait_for_end(broker, -1, delay_ms))
			return;
		delay_ms = delay_ms < MOST_DELAY_MS ? 2 * delay_ms : delay_ms;
		line = join_once(name, SANITIZED);
	}
}

/*
 * Nothing of the machine's, and no terminal, stays with it; nor of others that are made with it, of
 * which more may be open than there are numbers below.
 */
static void leave_all_but(int *broker, int *line)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	*broker = fcntl(*broker, F_DUPFD_CLOEXEC, FIRST_KEPT_FD);
	*line = *broker < 0 ? -1 : fcntl(*line, F_DUPFD_CLOEXEC, *broker + 1);
	if (*line < 0)
		_exit(1);
	syscall(SYS_close_range, STDERR_FILENO + 1, *broker - 1, 0);
	if (*line > *broker + 1)
		syscall(SYS_close_range, *broker + 1, *line - 1, 0);
	syscall(SYS_close_range, *line + 1, ~0u, 0);
	setsid();
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * What it keeps is what starting a balancer takes: the program, the folder where machines listen,
 * and what a balancer reads of the host. 0 or -errno.
 */
static int give_up_rights(void)
{
	static const char *const host[] = { "/proc/meminfo", "/proc/pressure/memory" };
	struct lockdown_file files[3];
	char place[PATH_BYTES];
	unsigned count = 0;
	int own = spawn_open_program();
	int error;

	if (own < 0)
		return own;
	if (own != grant_fd(GRANT_PROGRAM)) {
		dup3(own, grant_fd(GRANT_PROGRAM), O_CLOEXEC);
		close(own);
	}
	files[0].fd = name_balancer_path(place, sizeof(place));
	files[0].access = LOCKDOWN_MEET;
	count += files[0].fd >= 0;
	for (unsigned n = 0; n < 2; n++) {
		files[count].fd = open(host[n], O_PATH | O_CLOEXEC);
		files[count].access = LOCKDOWN_WRITE;
		count += files[count].fd >= 0;
	}
	error = lockdown_to_start(ROLE_JOINER, ROLE_BALANCER, true, files, count);
	while (count)
		close(files[--count].fd);
	return error;
}

int balance_join(const char *name, pid_t broker)
{
	int line = join_once(name, true);
	int broker_fd;

	if (line < 0)
		return line;
	broker_fd = (int)syscall(SYS_pidfd_open, broker, 0);
	if (broker_fd >= 0 && !fork()) {
		leave_all_but(&broker_fd, &line);
		if (SANITIZED || !give_up_rights())
			stay(name, broker_fd, line);
		_exit(0);
	}
	if (broker_fd >= 0)
		close(broker_fd);
	close(line);
	return 0;
}
