/*
 * umbra-door: one socket for all users of a host's group, behind which each has a daemon of his
 * own. It is the only program of Umbra's that runs as root, and does what needs that alone: the
 * kernel says who connects, and a process goes on as that user.
 *
 *   /run/umbra/umbrad.sock --accept, SO_PEERCRED--> a process for the connection, as the user:
 *       his umbrad (control/names.h), started with its socket if nobody listens there;
 *       bytes, both ways, until both sides have ended
 *
 *   - Nothing that a client sends is looked at by a process with rights: not a byte is read before
 *     these are given up, and who cannot give them up ends.
 *   - A user reaches his own daemon and no other, since it is reached with his rights; that one
 *     looks at who connects once more (daemon/front.c).
 *   - So many connections of a user and of all, and no more (connections.h): one beyond that is
 *     closed.
 *   - Daemons and connections go on when it ends.
 *
 * Left out: who may connect is a matter of the socket's mode (its group). A user of a namespace,
 * whom the host knows as nobody, has none.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/names.h"
#include "connections.h"
#include "lib/next_option.h"

enum { FIRST_PASSED = 3, RELAY_BYTES = 65536, NUMBER_BYTES = 24 };
enum { EXIT_USAGE = 64, EXIT_UNUSABLE = 65 };

static const char help[] =
	"usage: umbra-door [--socket PATH] [--umbrad PROGRAM] [--users FOLDER]\n"
	"Leads each user who connects to his own umbrad, which is started if he has none. It\n"
	"listens at the socket that systemd passes, or at PATH. PROGRAM is /usr/bin/umbrad,\n"
	"FOLDER/UID a user's runtime folder (/run/user); who has none has /tmp/umbra-UID.\n";

struct options { const char *socket, *program, *users; };

struct door {
	struct options options;
	int listener, signals;
	struct connections connections;
};

static int complain(int code, const char *what, const char *where, const char *remedy)
{
	fprintf(stderr, "umbra-door: %s: %s; %s\n", where, what, remedy);
	return code;
}

/* ---- as the user ---- */

static bool is_folder_of(const char *path, uid_t user)
{
	struct stat status;

	return !lstat(path, &status) && S_ISDIR(status.st_mode) && status.st_uid == user;
}

/* What a shell of his would have, as far as Umbra asks for it. */
static void make_environment(const struct options *options, const struct passwd *user)
{
	char runtime[PATH_MAX];

	clearenv();
	setenv("HOME", user->pw_dir, 1);
	setenv("USER", user->pw_name, 1);
	setenv("LOGNAME", user->pw_name, 1);
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
	snprintf(runtime, sizeof(runtime), "%s/%u", options->users, (unsigned)user->pw_uid);
	if (is_folder_of(runtime, user->pw_uid))
		setenv("XDG_RUNTIME_DIR", runtime, 1);
}

/* For good; false: it is not to go on. */
static bool become(const struct passwd *user)
{
	if (initgroups(user->pw_name, user->pw_gid) ||
	    setresgid(user->pw_gid, user->pw_gid, user->pw_gid) ||
	    setresuid(user->pw_uid, user->pw_uid, user->pw_uid))
		return false;
	return getuid() == user->pw_uid && (!getuid() || setuid(0));
}

/* A process of its own, which has the socket as systemd would pass it (sd_listen_fds(3)). */
static int start_daemon(const struct options *options, int listener)
{
	char *const words[] = { (char *)(uintptr_t)options->program, NULL };
	char number[NUMBER_BYTES];
	const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	const pid_t child = nothing < 0 ? -1 : fork();

	if (child)
		return child < 0 ? -errno : 0;
	setsid();
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDS", "1", 1);
	if (dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0 ||
	    (listener != FIRST_PASSED && dup2(listener, FIRST_PASSED) < 0) ||
	    fcntl(FIRST_PASSED, F_SETFD, 0))
		_exit(EXIT_UNUSABLE);
	execv(options->program, words);
	_exit(EXIT_UNUSABLE);
}

/*
 * A connection to his daemon, which is started if nobody listens: what it is sent waits for it.
 * Of two who come at a time one starts it: the folder is locked. -errno.
 */
static int reach(const struct options *options)
{
	char path[PATH_MAX];
	const int folder = name_daemon_path(path, sizeof(path));
	int listener;
	int peer;

	if (folder < 0)
		return folder;
	peer = flock(folder, LOCK_EX) ? -errno : name_connect_at(path);
	if (peer == -ENOENT || peer == -ECONNREFUSED) {
		const mode_t mask = umask(077);

		listener = name_listen_at(path);
		umask(mask);
		peer = listener < 0 ? listener : start_daemon(options, listener);
		if (!peer)
			peer = name_connect_at(path);
		if (listener >= 0)
			close(listener);
	}
	close(folder);
	return peer;
}

/* ---- bytes ---- */

struct flow { int from, to; size_t used, sent; bool ended; uint8_t bytes[RELAY_BYTES]; };

static short flow_wants_from(const struct flow *flow)
{
	return !flow->ended && flow->sent == flow->used ? POLLIN : 0;
}

static short flow_wants_to(const struct flow *flow)
{
	return flow->sent < flow->used ? POLLOUT : 0;
}

/* False: it is broken. What has ended at one side ends at the other, behind the last byte. */
static bool flow_turn(struct flow *flow, bool can_read, bool can_write)
{
	ssize_t got;

	if (can_read && flow_wants_from(flow)) {
		got = recv(flow->from, flow->bytes, sizeof(flow->bytes), MSG_DONTWAIT);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		flow->used = (size_t)got;
		flow->sent = 0;
		flow->ended = !got;
		if (flow->ended)
			shutdown(flow->to, SHUT_WR);
	} else if (can_write && flow_wants_to(flow)) {
		got = send(flow->to, flow->bytes + flow->sent, flow->used - flow->sent,
			   MSG_DONTWAIT | MSG_NOSIGNAL);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		flow->sent += (size_t)got;
	}
	return true;
}

static void relay(int client, int peer)
{
	static struct flow in, out;
	const short end = POLLHUP | POLLERR;

	in.from = out.to = client;
	in.to = out.from = peer;
	while (!in.ended || !out.ended || flow_wants_to(&in) || flow_wants_to(&out)) {
		struct pollfd side[2] = {
			{ .fd = client, .events = flow_wants_from(&in) | flow_wants_to(&out) },
			{ .fd = peer, .events = flow_wants_from(&out) | flow_wants_to(&in) },
		};

		/* who is gone is looked at only where something is wanted of him */
		side[0].fd = side[0].events ? client : -1;
		side[1].fd = side[1].events ? peer : -1;
		if (poll(side, 2, -1) < 0 && errno != EINTR)
			return;
		if (!flow_turn(&in, side[0].revents & (POLLIN | end), side[1].revents) ||
		    !flow_turn(&out, side[1].revents & (POLLIN | end), side[0].revents))
			return;
	}
}

/* Of one connection; what is said to a client who has no daemon is that it is closed. */
static void serve_as(const struct door *door, int client, uid_t uid)
{
	const struct passwd *user = getpwuid(uid);
	sigset_t none;
	int peer;

	close(door->listener);
	close(door->signals);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!user || !become(user))
		_exit(EXIT_UNUSABLE);
	make_environment(&door->options, user);
	if (chdir(user->pw_dir) && chdir("/"))
		_exit(EXIT_UNUSABLE);
	peer = reach(&door->options);
	if (peer < 0)
		_exit(complain(EXIT_UNUSABLE, strerror(-peer), user->pw_name,
			       "his daemon cannot be reached"));
	relay(client, peer);
	_exit(0);
}

/* ---- with rights ---- */

static void take_connection(struct door *door)
{
	const int client = accept4(door->listener, NULL, NULL, SOCK_CLOEXEC);
	struct ucred who = { .uid = NOBODY };
	socklen_t bytes = sizeof(who);
	pid_t child = -1;

	if (client < 0)
		return;
	if (!getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &bytes) &&
	    connections_admit(&door->connections, who.uid))
		child = fork();
	if (!child)
		serve_as(door, client, who.uid);
	if (child > 0)
		connections_add(&door->connections, child, who.uid);
	close(client);
}

static void forget_children(struct door *door)
{
	pid_t child;

	while ((child = waitpid(-1, NULL, WNOHANG)) > 0)
		connections_forget(&door->connections, child);
}

/* False: it is to end. */
static bool take_signal(struct door *door)
{
	struct signalfd_siginfo info;

	if (read(door->signals, &info, sizeof(info)) != sizeof(info))
		return true;
	forget_children(door);
	return info.ssi_signo == SIGCHLD;
}

static void serve(struct door *door)
{
	struct pollfd wanted[] = { { .fd = door->signals, .events = POLLIN },
				   { .fd = door->listener, .events = POLLIN } };

	for (;;) {
		if (poll(wanted, 2, -1) < 0)
			continue;
		if (wanted[0].revents && !take_signal(door))
			return;
		if (wanted[1].revents)
			take_connection(door);
	}
}

/* ---- its begin ---- */

static int open_listener(const struct options *options)
{
	const char *pid = getenv("LISTEN_PID");
	const char *count = getenv("LISTEN_FDS");

	if (pid && count && atol(pid) == getpid() && atol(count) == 1) {
		fcntl(FIRST_PASSED, F_SETFD, FD_CLOEXEC);
		return FIRST_PASSED;
	}
	return options->socket ? name_listen_at(options->socket) : -EDESTADDRREQ;
}

static int open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = { { "socket", 1, 0, 's' },
					       { "umbrad", 1, 0, 'u' },
					       { "users", 1, 0, 'U' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct wrong_option wrong;
	int option;

	while ((option = next_option(argc, argv, "", longs, &wrong)) != -1)
		switch (option) {
		case 's': options->socket = optarg; break;
		case 'u': options->program = optarg; break;
		case 'U': options->users = optarg; break;
		case 'h': fputs(help, stdout); exit(0);
		default:
			return complain(EXIT_USAGE, wrong.what, wrong.where,
					"see umbra-door --help");
		}
	return optind < argc ? complain(EXIT_USAGE, "unexpected argument", argv[optind],
					"see umbra-door --help")
			     : 0;
}

int main(int argc, char **argv)
{
	static struct door door = { .options = { .program = "/usr/bin/umbrad",
						 .users = "/run/user" } };
	int code = parse(argc, argv, &door.options);

	if (code)
		return code;
	door.listener = open_listener(&door.options);
	if (door.listener < 0)
		return complain(EXIT_UNUSABLE, strerror(-door.listener), "the socket",
				"start it by systemd, or say --socket PATH");
	door.signals = open_signals();
	if (door.signals < 0)
		return complain(EXIT_UNUSABLE, strerror(errno), "signals", "try again");
	serve(&door);
	return 0;
}
