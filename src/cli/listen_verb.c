/*
 * umbra listen: machines that umbra fork --to sends arrive, and go on here. Each connection is
 * served by a process of its own, behind umbra-wire: what is heard here comes from somebody who has
 * the key, and is hostile all the same (arrival.h).
 *
 * One such process waits at any time, with an umbra-wire that accepts the next connection, and with
 * the processes of a machine (spare.h): a machine that arrives waits for none of them to begin.
 *
 *   - It listens where it was told to, and at the loopback when it was not.
 *   - CONNECTIONS_MOST at a time. Who has not shown yet that he may come keeps nobody else's place:
 *     where all are taken the one of these that came first is left; while each has shown it, the
 *     next one waits to be accepted.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arrival.h"
#include "arrival_permits.h"
#include "cli.h"
#include "helper_program.h"
#include "landing.h"
#include "option.h"
#include "place.h"
#include "share_option.h"
#include "spare.h"
#include "wire_line.h"

enum { CONNECTIONS_MOST = 32, MEMORY_TIMES = 5, WAIT_S = 60, WAIT_MOST_S = 86400 };
enum { OTHER_BYTES = 64 << 20, AGAIN_US = 100000 };
enum { SHOWS_MS = 25, BEGINS_MS = 250, ALONE_MS = 1000, FIRST_MS = 100 };
static const char default_port[] = "4640";

static const char listen_help[] =
	"usage: umbra listen [ADDRESS:PORT|PORT] --key FILE [--folder FOLDER] [--disks FOLDER]\n"
	"                    [--wait SECONDS] [--serve NAME[=packet|=disk]]...\n"
	"                    [--bind MACHINE/NAME[=packet|=disk]]... [--switch NAME]...\n"
	"                    [--parents FOLDER]...\n"
	"       umbra listen --make-key FILE\n"
	"       umbra listen [ADDRESS:PORT|PORT] --cert FILE --cert-key FILE --ca FILE ...\n"
	"Machines that umbra fork NAME --to HOST:PORT sends arrive here, and go on. It listens at\n"
	"127.0.0.1 unless an ADDRESS is given, at PORT (4640; 0: any, which it says). FILE has\n"
	"the key that both sides have; --make-key makes one. Or each side has a certificate,\n"
	"with its key, of an authority that the other believes (--ca, all in PEM).\n"
	"What arrives lies in FOLDER\n"
	"(/var/tmp) until all of it is there; the machine runs before. A connection that is lost\n"
	"is waited for, for SECONDS (60): then the machine ends. With --disks the files of its\n"
	"disks come as well, into that FOLDER, while it runs, and it goes on in files of its own\n"
	"there; without, its disks have to be here, where and what they were, in folders that\n"
	"--parents names, and so do parents of theirs. A card of it is on a switch here where\n"
	"--switch permits that one, and reaches no services of this host. A machine that\n"
	"has ports of just these kinds joins the hub here with those of --serve and --bind, as of\n"
	"umbra run; nobody is at those of any other.\n";

/*
 * A connection that somebody serves, the leader of a group of processes. line: it says a byte once
 * it has a connection, another one once the other side has shown that it may come, and is closed
 * when its machine has begun, or will not; -1: closed.
 */
struct served { pid_t process; int line; bool has_shown; };

struct listen {
	const char *place, *folder;
	char *disks; /* NULL: none */
	struct wire_secret secret;
	struct share_plan ports;
	struct arrival_permits permits;
	int socket;
	unsigned wait_s;
	uint64_t most_bytes;
	struct served served[CONNECTIONS_MOST]; /* in the order in which they came */
	unsigned count;
};

/*
 * The next connection that comes; `taken` has a byte once there is one. Until then it ends with who
 * listens.
 */
static int serve(const struct listen *listen, int taken)
{
	const struct arrival_place place = { .folder = listen->folder,
					     .disks = listen->disks,
					     .ports = &listen->ports,
					     .permits = &listen->permits,
					     .most_bytes = listen->most_bytes,
					     .wait_s = listen->wait_s,
					     .begun = taken };
	struct spare spare = { .broker.line = -1, .begun = { .ns = 0 } };
	struct wire_line line;
	int error = wire_line_listen(listen->socket, &listen->secret, &line);

	close(listen->socket);
	if (!error)
		error = spare_begin(&spare);
	if (!error)
		error = wire_line_finish(&line); /* there is a connection */
	if (error)
		return error;
	spare.begun = machine_moment_now();
	prctl(PR_SET_PDEATHSIG, 0);
	send(taken, "", 1, MSG_NOSIGNAL); /* who listens may be gone: what has come is served */
	error = wire_line_finish(&line);
	if (!error)
		send(taken, "", 1, MSG_NOSIGNAL);
	if (!error)
		arrival_serve(&place, &line, &spare);
	return error;
}

/* ---- listening ---- */

static int begin(struct listen *listen)
{
	char wire[PATH_MAX];
	struct place place;
	int error = place_parse(listen->place, default_port, &place);

	if (error)
		return complain(EXIT_USAGE, "not ADDRESS:PORT", listen->place,
				"say for example 127.0.0.1:4640");
	if (helper_program_find("umbra-wire", wire, sizeof(wire)))
		return complain(EXIT_UNUSABLE, "not beside this program", "umbra-wire",
				"build it, or install all of Umbra");
	listen->socket = place_listen(&place);
	if (listen->socket < 0)
		return complain(EXIT_USAGE, strerror(-listen->socket), listen->place ?: place.port,
				"name an address of this host, and a port where nobody listens");
	wire_line_tune(listen->socket); /* for what it accepts, too */
	if (fcntl(listen->socket, F_SETFL, O_NONBLOCK))
		return complain(EXIT_FAULT, strerror(errno), "umbra listen", "start it again");
	listen->most_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) *
				     MEMORY_TIMES +
			     OTHER_BYTES;
	place_say(listen->socket);
	return 0;
}

/* ---- who is served ---- */

/* What it has said, until it says nothing for so long, or has said all. */
static void hear_served(struct served *served, int wait_ms)
{
	struct pollfd line = { .fd = served->line, .events = POLLIN };
	char byte;

	if (served->line < 0 || poll(&line, 1, wait_ms) <= 0)
		return;
	if (read(served->line, &byte, 1) == 1) {
		served->has_shown = true;
		return;
	}
	close(served->line);
	served->line = -1;
}

static void forget(struct listen *listen, pid_t process)
{
	for (unsigned n = 0; n < listen->count; n++) {
		struct served *served = &listen->served[n];

		if (served->process != process)
			continue;
		if (served->line >= 0)
			close(served->line);
		listen->count--;
		memmove(served, served + 1, (listen->count - n) * sizeof(*served));
		return;
	}
}

static void forget_ended(struct listen *listen, int flags)
{
	pid_t process;

	while (listen->count && (process = waitpid(-1, NULL, flags)) > 0) {
		forget(listen, process);
		flags = WNOHANG;
	}
}

/* With its umbra-wire. False: all of them have shown that they may come. */
static bool leave_slowest(struct listen *listen)
{
	for (unsigned n = 0; n < listen->count; n++) {
		const struct served *served = &listen->served[n];

		hear_served(&listen->served[n], 0);
		if (served->has_shown)
			continue;
		kill(-served->process, SIGKILL);
		waitpid(served->process, NULL, 0);
		forget(listen, served->process);
		return true;
	}
	return false;
}

static void make_room(struct listen *listen)
{
	forget_ended(listen, WNOHANG);
	if (listen->count == CONNECTIONS_MOST && !leave_slowest(listen))
		forget_ended(listen, 0);
}

/* Its umbra-wire is of its group, and can be ended with it. */
static _Noreturn void serve_one(const struct listen *listen, int taken, pid_t parent)
{
	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || getppid() != parent)
		_exit(EXIT_FAULT);
	_exit(serve(listen, taken) ? EXIT_UNUSABLE : 0);
}

/* So long; and longer while no other connection waits, whom nobody would serve. */
static void wait_for_word(const struct listen *listen, struct served *served, int least_ms)
{
	struct pollfd fds[] = { { .fd = served->line, .events = POLLIN },
				{ .fd = listen->socket, .events = POLLIN } };

	if (!poll(fds, 1, least_ms))
		poll(fds, 2, ALONE_MS);
	hear_served(served, 0);
}

/*
 * Until the machine runs, or will not: what begins meanwhile takes processors from it, and makes it
 * wait for namespaces. Where another connection waits, not for long; and of who has not shown that
 * he may come hardly at all.
 */
static void wait_for_begin(const struct listen *listen, struct served *served)
{
	struct pollfd next = { .fd = listen->socket, .events = POLLIN };

	wait_for_word(listen, served, SHOWS_MS);
	if (served->has_shown)
		wait_for_word(listen, served, BEGINS_MS);
	if (served->line < 0)
		poll(&next, 1, FIRST_MS); /* its guest has most to do then */
}

/* Whether somebody has taken the connection that came next. */
static bool wait_for_one(struct listen *listen)
{
	const pid_t self = getpid();
	struct served *next = &listen->served[listen->count];
	int taken[2];
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, taken))
		return false;
	*next = (struct served){ .process = fork(), .line = taken[0] };
	if (!next->process) {
		close(taken[0]);
		serve_one(listen, taken[1], self);
	}
	close(taken[1]);
	if (next->process < 0) {
		close(taken[0]);
		return false;
	}
	listen->count++;
	if (read(taken[0], &byte, 1) != 1)
		return false;
	wait_for_begin(listen, next);
	return true;
}

static _Noreturn void serve_all(struct listen *listen)
{
	for (;;) {
		if (!wait_for_one(listen))
			usleep(AGAIN_US);
		arrival_remove_old(listen->folder);
		if (listen->disks)
			landing_remove_old(listen->disks);
		make_room(listen);
	}
}

int verb_listen(int argc, char **argv)
{
	static const struct option longs[] = { { "key", 1, 0, 'k' },
					       { "make-key", 1, 0, 'm' },
					       { "folder", 1, 0, 'f' },
					       { "disks", 1, 0, 'd' },
					       { "cert", 1, 0, 'C' },
					       { "cert-key", 1, 0, 'P' },
					       { "ca", 1, 0, 'A' },
					       { "wait", 1, 0, 'w' },
					       { "serve", 1, 0, 's' },
					       { "bind", 1, 0, 'b' },
					       { "switch", 1, 0, 'S' },
					       { "parents", 1, 0, 'p' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct listen listen = { .folder = "/var/tmp", .wait_s = WAIT_S };
	struct wire_certificates certificates = { .key = NULL };
	const char *key = NULL;
	int option;
	int code = 0;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 's': code = code ? code : share_option_serve(&listen.ports, optarg); break;
		case 'b': code = code ? code : share_option_bind(&listen.ports, optarg); break;
		case 'S':
			code = code ? code : arrival_permit_switch(&listen.permits, optarg);
			break;
		case 'p':
			code = code ? code : arrival_permit_folder(&listen.permits, optarg);
			break;
		case 'k': key = optarg; break;
		case 'C': certificates.certificate = optarg; break;
		case 'P': certificates.key = optarg; break;
		case 'A': certificates.authority = optarg; break;
		case 'm': return wire_key_make(optarg);
		case 'f': listen.folder = optarg; break;
		case 'd':
			free(listen.disks);
			listen.disks = realpath(optarg, NULL);
			if (!listen.disks)
				return complain(EXIT_USAGE, strerror(errno), optarg,
						"name a folder for disks");
			break;
		case 'w':
			if (option_wait(optarg, WAIT_MOST_S, &listen.wait_s))
				return EXIT_USAGE;
			break;
		case 'h': fputs(listen_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (argc - optind > 1)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind + 1],
				"see umbra listen --help");
	listen.place = argv[optind];
	if (!code)
		code = wire_secret_read(key, &certificates, "", &listen.secret);
	if (!code)
		code = begin(&listen);
	if (!code)
		serve_all(&listen);
	return code;
}
