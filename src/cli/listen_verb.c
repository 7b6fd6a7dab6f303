/*
 * umbra listen: machines that umbra fork --to sends arrive, and go on here. Each connection is
 * served by a process of its own, behind umbra-wire: what is heard here comes from somebody who has
 * the key, and is hostile all the same (arrival.h).
 *
 *  1. It listens where it was told to, and at the loopback when it was not.
 *  2. CONNECTIONS at a time; the next one waits to be accepted.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arrival.h"
#include "cli.h"
#include "place.h"
#include "wire_line.h"

enum { CONNECTIONS = 32, MEMORY_TIMES = 5, WAIT_S = 60, WAIT_MOST_S = 86400 };
enum { OTHER_BYTES = 64 << 20 };
static const char default_port[] = "4640";

static const char listen_help[] =
	"usage: umbra listen [ADDRESS:PORT|PORT] --key FILE [--folder FOLDER] [--wait SECONDS]\n"
	"       umbra listen --make-key FILE\n"
	"Machines that umbra fork NAME --to HOST:PORT sends arrive here, and go on. It listens at\n"
	"127.0.0.1 unless an ADDRESS is given, at PORT (4640; 0: any, which it says). FILE has\n"
	"the key that both sides have; --make-key makes one. What arrives lies in FOLDER\n"
	"(/var/tmp) until all of it is there; the machine runs before. A connection that is lost\n"
	"is waited for, for SECONDS (60): then the machine ends. Its disks have to be here, where\n"
	"and what they were.\n";

struct listen {
	const char *place, *folder;
	uint8_t key[WIRE_KEY_BYTES];
	int socket;
	unsigned wait_s;
	uint64_t most_bytes;
};

static int serve(const struct listen *listen, int connection)
{
	const struct arrival_place place = { .folder = listen->folder,
					     .most_bytes = listen->most_bytes,
					     .wait_s = listen->wait_s };
	struct wire_line line;
	int error;

	wire_line_tune(connection);
	error = wire_line_open(connection, true, listen->key, &line);
	if (!error)
		arrival_serve(&place, &line);
	return error;
}

/* ---- listening ---- */

static int begin(struct listen *listen)
{
	struct place place;
	int error = place_parse(listen->place, default_port, &place);

	if (error)
		return complain(EXIT_USAGE, "not ADDRESS:PORT", listen->place,
				"say for example 127.0.0.1:4640");
	listen->socket = place_listen(&place);
	if (listen->socket < 0)
		return complain(EXIT_USAGE, strerror(-listen->socket), listen->place ?: place.port,
				"name an address of this host, and a port where nobody listens");
	listen->most_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) *
				     MEMORY_TIMES +
			     OTHER_BYTES;
	place_say(listen->socket);
	return 0;
}

/* Those that have ended; while there are CONNECTIONS, it waits for one. */
static void count_ends(unsigned *running)
{
	while (*running && waitpid(-1, NULL, *running < CONNECTIONS ? WNOHANG : 0) > 0)
		--*running;
}

static int serve_all(const struct listen *listen)
{
	unsigned running = 0;

	for (;;) {
		int connection = accept4(listen->socket, NULL, NULL, SOCK_CLOEXEC);
		pid_t child;

		if (connection < 0 && errno != EINTR && errno != ECONNABORTED)
			return complain(EXIT_FAULT, strerror(errno), "umbra listen",
					"start it again");
		if (connection < 0)
			continue;
		arrival_remove_old(listen->folder);
		child = fork();
		if (!child) {
			close(listen->socket);
			_exit(serve(listen, connection) ? EXIT_UNUSABLE : 0);
		}
		running += child > 0;
		close(connection);
		count_ends(&running);
	}
}

static bool parse_wait(const char *text, unsigned *ret)
{
	char *end;
	const unsigned long seconds = strtoul(text, &end, 10);

	*ret = (unsigned)seconds;
	return end != text && !*end && seconds <= WAIT_MOST_S;
}

int verb_listen(int argc, char **argv)
{
	static const struct option longs[] = { { "key", 1, 0, 'k' },
					       { "make-key", 1, 0, 'm' },
					       { "folder", 1, 0, 'f' },
					       { "wait", 1, 0, 'w' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct listen listen = { .folder = "/var/tmp", .wait_s = WAIT_S };
	const char *key = NULL;
	int option;
	int code;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (option) {
		case 'k': key = optarg; break;
		case 'm': return wire_key_make(optarg);
		case 'f': listen.folder = optarg; break;
		case 'w':
			if (!parse_wait(optarg, &listen.wait_s))
				return complain(EXIT_USAGE, "not a number of seconds", optarg,
						"say for example --wait 60");
			break;
		case 'h': fputs(listen_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (argc - optind > 1 || !key)
		return complain(EXIT_USAGE, key ? "unexpected argument" : "no key",
				key ? argv[optind + 1] : "--key",
				"see umbra listen --help");
	listen.place = argv[optind];
	code = wire_key_read(key, listen.key);
	if (!code)
		code = begin(&listen);
	return code ? code : serve_all(&listen);
}
