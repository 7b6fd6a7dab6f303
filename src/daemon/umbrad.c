/*
 * umbrad: the daemon of one user. It knows all of his machines that have a name, also those that
 * were started without it, and is asked by HTTP on a Unix socket (front.h). It holds nothing of a
 * machine's: it may end and come back at any time.
 *
 * Its way: options; the store; the socket, of systemd's or its own; then one loop until SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/names.h"
#include "control/protocol.h"
#include "daemon.h"
#include "failure.h"
#include "front.h"
#include "host_id.h"
#include "lib/next_option.h"
#include "lib/plain_text.h"
#include "page_port.h"
#include "secure_port.h"

enum { PLACE_BYTES = 4096, FIRST_PASSED = 3, LISTEN_TRIES = 20, LISTEN_AGAIN_US = 100000 };

static const char help[] =
	"usage: umbrad [--store FILE [--host NAME]] [--socket PATH] [--umbra PROGRAM]\n"
	"              [--listen ADDRESS:PORT --certificate FILE --key FILE --token FILE]\n"
	"The daemon of one user's machines: HTTP on a Unix socket (umbra-api(7)), which\n"
	"is .daemon in the folder of the machines' names unless PATH is given or systemd passes\n"
	"one. What it keeps is in FILE, $XDG_STATE_HOME/umbra/umbrad.sqlite (~/.local/state),\n"
	"or in a PostgreSQL database: postgresql://HOST/DATABASE. There NAME tells the daemons\n"
	"of this host from others'; unless it is given it is made of /etc/machine-id.\n"
	"--listen has it heard at a TCP port as well, by TLS with that certificate and key (PEM),\n"
	"by who sends the token, which is the first line of its FILE, as Authorization: Bearer.\n"
	"PROGRAM is the command that it executes: umbra beside it, or in /usr/bin.\n"
	"It ends at SIGTERM; machines run on, and are found again.\n";

struct options {
	const char *store, *socket, *program, *host;
	struct secure_options secure;
};

struct whole {
	struct daemon daemon;
	struct front front, remote;
	struct secure_port secure;
	struct page_port page;
	struct loop_source signals;
	char store_path[PLACE_BYTES], socket_path[PLACE_BYTES], program[PLACE_BYTES];
	bool has_own_socket;
};

static int complain(int code, const char *what, const char *where, const char *remedy)
{
	plain_line(stderr, "umbrad: %s: %s; %s", where, what, remedy);
	return code;
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {
		{ "store", 1, 0, 's' },       { "socket", 1, 0, 'S' }, { "umbra", 1, 0, 'u' },
		{ "listen", 1, 0, 'l' },      { "key", 1, 0, 'k' },    { "token", 1, 0, 't' },
		{ "host", 1, 0, 'H' },
		{ "certificate", 1, 0, 'c' }, { "help", 0, 0, 'h' },   { "version", 0, 0, 'v' },
		{ 0 },
	};
	struct wrong_option wrong;
	int option;

	while ((option = next_option(argc, argv, "", longs, &wrong)) != -1)
		switch (option) {
		case 's': options->store = optarg; break;
		case 'S': options->socket = optarg; break;
		case 'u': options->program = optarg; break;
		case 'H': options->host = optarg; break;
		case 'l': options->secure.listen = optarg; break;
		case 'c': options->secure.certificate = optarg; break;
		case 'k': options->secure.key = optarg; break;
		case 't': options->secure.token = optarg; break;
		case 'h': fputs(help, stdout); exit(0);
		case 'v': puts("umbrad " UMBRA_VERSION); exit(0);
		default:
			return complain(FAILURE_USAGE, wrong.what, wrong.where,
					"see umbrad --help");
		}
	if (optind < argc)
		return complain(FAILURE_USAGE, "unexpected argument", argv[optind],
				"see umbrad --help");
	return 0;
}

/* ---- places ---- */

/* Every folder of the path but the last name; 0700. */
static int make_folders(const char *path)
{
	char part[PLACE_BYTES];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (mkdir(part, 0700) && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int store_place(const struct options *options, char path[PLACE_BYTES])
{
	const char *state = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME") ?: "";
	int bytes;

	if (options->store)
		bytes = snprintf(path, PLACE_BYTES, "%s", options->store);
	else if (state && *state == '/')
		bytes = snprintf(path, PLACE_BYTES, "%s/umbra/umbrad.sqlite", state);
	else
		bytes = snprintf(path, PLACE_BYTES, "%s/.local/state/umbra/umbrad.sqlite",
				 home);
	if (bytes >= PLACE_BYTES)
		return -ENAMETOOLONG;
	return options->store ? 0 : make_folders(path);
}

static int find_program(const struct options *options, char path[PLACE_BYTES])
{
	char own[PLACE_BYTES] = "";

	if (options->program) {
		snprintf(path, PLACE_BYTES, "%s", options->program);
		return access(path, X_OK) ? -errno : 0;
	}
	if (readlink("/proc/self/exe", own, sizeof(own) - 1) < 0)
		own[0] = 0;
	if (snprintf(path, PLACE_BYTES, "%s/umbra", dirname(own)) < PLACE_BYTES &&
	    !access(path, X_OK))
		return 0;
	snprintf(path, PLACE_BYTES, "/usr/bin/umbra");
	return access(path, X_OK) ? -errno : 0;
}

/* ---- the socket ---- */

/* What systemd passes (sd_listen_fds(3)); -1: nothing. */
static int passed_socket(void)
{
	const char *pid = getenv("LISTEN_PID");
	const char *count = getenv("LISTEN_FDS");

	if (!pid || !count || atol(pid) != getpid() || atol(count) != 1)
		return -1;
	fcntl(FIRST_PASSED, F_SETFD, FD_CLOEXEC); /* or every command would have it, too */
	return FIRST_PASSED;
}

/* One who begins at the same time does not take our socket for a dead one: the folder is locked. */
static int own_socket(const char *path)
{
	char standard[PLACE_BYTES];
	int folder = name_daemon_path(standard, sizeof(standard));
	int fd;

	if (folder < 0)
		return folder;
	path = path ? path : standard;
	fd = flock(folder, LOCK_EX) ? -errno : name_listen_at(path);
	if (fd >= 0)
		listen(fd, SOMAXCONN); /* clients that do not wait are refused when it is full */
	close(folder);
	return fd;
}

/*
 * The socket of a daemon that was killed may stay a little longer than it does: a command that it
 * was just starting has it until the kernel closes what is not passed on.
 */
static int own_socket_soon(const char *path)
{
	int fd = own_socket(path);

	for (unsigned n = 1; n < LISTEN_TRIES && fd == -EADDRINUSE; n++) {
		usleep(LISTEN_AGAIN_US);
		fd = own_socket(path);
	}
	return fd;
}

static int open_socket(struct whole *whole, const struct options *options)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	socklen_t bytes = sizeof(at);
	mode_t mask = umask(077);
	int fd = passed_socket();

	if (fd < 0) {
		fd = own_socket_soon(options->socket);
		whole->has_own_socket = fd >= 0;
	}
	umask(mask);
	if (fd >= 0 && !getsockname(fd, (struct sockaddr *)&at, &bytes))
		snprintf(whole->socket_path, sizeof(whole->socket_path), "%s", at.sun_path);
	return fd;
}

/* sd_notify(3) */
static void say_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = path ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;

	if (fd < 0 || strlen(path) >= sizeof(at.sun_path)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	memcpy(at.sun_path, path, strlen(path));
	if (at.sun_path[0] == '@')
		at.sun_path[0] = 0;
	sendto(fd, "READY=1", strlen("READY=1"), MSG_NOSIGNAL, (const struct sockaddr *)&at,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
	close(fd);
}

/* ---- the parts ---- */

static void signals_ready(void *context, uint32_t events)
{
	struct whole *whole = context;

	(void)events;
	whole->daemon.loop.ends = true;
}

static int open_signals(struct whole *whole)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	whole->signals = (struct loop_source){ signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					       signals_ready, whole };
	return loop_add(&whole->daemon.loop, &whole->signals, EPOLLIN);
}

static void machine_ended(void *context, const char *name)
{
	struct daemon *daemon = context;

	operations_machine_ended(&daemon->operations, name);
}

/* A machine is a connection, and so is who asks. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_parts(struct daemon *daemon)
{
	int error = events_open(&daemon->events, &daemon->loop, daemon->store);

	replay_open(&daemon->replay, daemon->store);
	if (!error)
		error = operations_open(&daemon->operations, &daemon->loop, daemon->store,
					&daemon->events);
	if (!error)
		error = machines_open(&daemon->machines, &daemon->loop, daemon->store,
				      &daemon->events);
	daemon->machines.ended = machine_ended;
	daemon->machines.context = daemon;
	return error;
}

static void close_parts(struct daemon *daemon)
{
	machines_close(&daemon->machines);
	operations_close(&daemon->operations);
	replay_close(&daemon->replay);
	events_close(&daemon->events);
	store_close(daemon->store);
	loop_close(&daemon->loop);
}

static const char *store_remedy(int error)
{
	switch (error) {
	case -EBADMSG: return "it is damaged, or no store: move it away, or restore it from a copy";
	case -EBUSY: return "another daemon has it: end that one";
	case -ENOSPC: return "make room where it is";
	case -ENOTCONN: return "start that server, or say where it is: postgresql://HOST/DATABASE";
	case -EPROTONOSUPPORT: return "take a file; this was built without libpq";
	default: return "name a file that can be written with --store";
	}
}

/* The address of a database may hold a password. */
static const char *store_shown(const struct whole *whole)
{
	return strncmp(whole->store_path, "postgres", strlen("postgres")) ? whole->store_path
									   : "--store";
}

static const char *secure_remedy(int error)
{
	switch (error) {
	case -EINVAL: return "say --certificate, --key and --token, each a file";
	case -EPERM: return "chmod 600: only its owner may read it";
	case -EKEYREJECTED: return "a token has 32 to 500 letters, as openssl rand -hex 32 says";
	case -EADDRNOTAVAIL: return "say an address by number, and a port: 127.0.0.1:8443";
	default: return "see umbrad --help";
	}
}

static int open_secure(struct whole *whole, const struct options *options)
{
	const char *where;
	int error = secure_port_open(&options->secure, &whole->secure, &where);

	if (error)
		return complain(FAILURE_UNUSABLE, strerror(-error), where, secure_remedy(error));
	return 0;
}

/* The exit code. Both doors lead to the same table. */
static int open_fronts(struct whole *whole, const struct options *options, int listener)
{
	int error = front_open(&whole->front, &whole->daemon, listener, NULL);

	if (error)
		return complain(FAILURE_FAULT, strerror(-error), "the daemon", "see umbrad --help");
	if (whole->secure.listener < 0 ||
	    !front_open(&whole->remote, &whole->daemon, whole->secure.listener, &whole->secure.tls))
		return 0;
	return complain(FAILURE_UNUSABLE, "no certificate, or not the key's",
			options->secure.certificate, "name files of PEM that belong together");
}

static const char *find_host(const struct options *options, char made[HOST_ID_BYTES])
{
	if (options->host)
		return options->host;
	return host_id_read(made) ? NULL : made;
}

static int begin(struct whole *whole, const struct options *options)
{
	char host[HOST_ID_BYTES];
	int listener;
	int error = find_program(options, whole->program);

	if (error)
		return complain(FAILURE_UNUSABLE, strerror(-error), whole->program,
				"name the command with --umbra");
	whole->daemon.program = whole->program;
	page_port_init(&whole->page, &whole->daemon);
	error = store_place(options, whole->store_path);
	if (!error)
		error = store_open(whole->store_path, find_host(options, host),
				   &whole->daemon.store);
	if (error)
		return complain(FAILURE_UNUSABLE, strerror(-error), store_shown(whole),
				store_remedy(error));
	error = open_secure(whole, options);
	if (error)
		return error;
	listener = open_socket(whole, options);
	if (listener < 0)
		return complain(FAILURE_UNUSABLE, strerror(-listener), "the socket",
				listener == -EADDRINUSE ? "a daemon listens there already"
							: "see umbrad --help");
	error = loop_open(&whole->daemon.loop);
	if (!error)
		error = open_signals(whole);
	if (!error)
		error = open_parts(&whole->daemon);
	if (error)
		return complain(FAILURE_FAULT, strerror(-error), "the daemon", "see umbrad --help");
	return open_fronts(whole, options, listener);
}

/* -1: never. */
static int64_t sooner(int64_t one_ms, int64_t other_ms)
{
	if (one_ms < 0 || (other_ms >= 0 && other_ms < one_ms))
		return other_ms;
	return one_ms;
}

/* The soonest of all; -1: never. The page's may be there only since the turn of another one. */
static int64_t turn_fronts(struct whole *whole)
{
	int64_t wait_ms = front_turn(&whole->front);

	if (whole->remote.http)
		wait_ms = sooner(wait_ms, front_turn(&whole->remote));
	if (whole->page.number)
		wait_ms = sooner(wait_ms, front_turn(&whole->page.front));
	if (whole->front.is_due || whole->remote.is_due) /* by what a later one was asked */
		return 0;
	return wait_ms;
}

static void serve(struct whole *whole)
{
	while (!whole->daemon.loop.ends)
		loop_turn(&whole->daemon.loop, turn_fronts(whole));
}

int main(int argc, char **argv)
{
	static struct whole whole;
	struct options options = { 0 };
	int code = parse(argc, argv, &options);

	if (!code) {
		control_protocol_init();
		setenv("UMBRA_PROGRESS", "1", 1); /* of the commands that it executes */
		raise_limit();
		code = begin(&whole, &options);
	}
	if (code)
		return code;
	say_ready();
	serve(&whole);
	if (whole.has_own_socket)
		unlink(whole.socket_path);
	front_close(&whole.front);
	if (whole.remote.http)
		front_close(&whole.remote);
	page_port_close(&whole.page);
	secure_port_close(&whole.secure);
	close_parts(&whole.daemon);
	return 0;
}
