/*
 * umbra listen: machines that umbra fork --to sends arrive, and go on here. Each connection is
 * served by a process of its own, behind umbra-wire: what is heard here comes from somebody who has
 * the key, and is hostile all the same (wire/parcel.h).
 *
 *   FOLDER/umbra-parcel-ID      what has arrived of one, locked while a connection brings more;
 *                               mode 0600; removed once it runs, or is refused, or is old
 *
 *  1. Nothing runs before all of it is there and is what its checksum says: then it is restored as
 *     any saved machine is, by a process without rights, with disks that are known here.
 *  2. It listens where it was told to, and at the loopback when it was not.
 *  3. CONNECTIONS at a time; the next one waits to be accepted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "control/names.h"
#include "place.h"
#include "wire/parcel.h"
#include "wire_line.h"

enum { CONNECTIONS = 8, PATH_BYTES = 4096, OLD_S = 3600, MEMORY_TIMES = 5 };
enum { OTHER_BYTES = 64 << 20, OUTPUT_BYTES = 4096 };
static const char default_port[] = "4640";
static const char prefix[] = "umbra-parcel-";

static const char listen_help[] =
	"usage: umbra listen [ADDRESS:PORT|PORT] --key FILE [--folder FOLDER]\n"
	"       umbra listen --make-key FILE\n"
	"Machines that umbra fork NAME --to HOST:PORT sends arrive here, and go on. It listens at\n"
	"127.0.0.1 unless an ADDRESS is given, at PORT (4640; 0: any, which it says). FILE has\n"
	"the key that both sides have; --make-key makes one. What arrives lies in FOLDER\n"
	"(/var/tmp) until it is whole. Its disks have to be here, where and what they were.\n";

struct listen {
	const char *place, *folder;
	uint8_t key[WIRE_KEY_BYTES];
	int socket;
	uint64_t most_bytes;
};

struct arrival {
	const struct listen *listen;
	struct wire_line line;
	struct parcel_head head;
	struct parcel_answer answer;
	char path[PATH_BYTES];
	int file;
};

/* ---- what arrives ---- */

static bool answer(struct arrival *arrival, int error, const char *text)
{
	uint8_t bytes[PARCEL_ANSWER_BYTES];

	arrival->answer.error = error;
	snprintf(arrival->answer.text, sizeof(arrival->answer.text), "%s", text);
	parcel_put_answer(&arrival->answer, bytes);
	return wire_line_send(&arrival->line, bytes, sizeof(bytes));
}

static bool runs_here(const char *name)
{
	int fd = name_connect(name);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Its file, which is nobody else's now. 0 or -errno: -EBUSY: another connection still has it. */
static int open_parcel(struct arrival *arrival)
{
	int used = snprintf(arrival->path, sizeof(arrival->path), "%s/%s", arrival->listen->folder,
			    prefix);
	struct stat st;

	if (used < 0 || (size_t)used + 2 * PARCEL_ID_BYTES >= sizeof(arrival->path))
		return -ENAMETOOLONG;
	for (unsigned n = 0; n < PARCEL_ID_BYTES; n++)
		snprintf(arrival->path + used + 2 * n, 3, "%02x", arrival->head.id[n]);
	arrival->file = open(arrival->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (arrival->file < 0)
		return -errno;
	if (flock(arrival->file, LOCK_EX | LOCK_NB))
		return -EBUSY;
	if (fstat(arrival->file, &st) || st.st_uid != geteuid() || !S_ISREG(st.st_mode))
		return -EPERM;
	if (!st.st_nlink) /* of another connection, which has just ended */
		return -EBUSY;
	if ((uint64_t)st.st_size > arrival->head.bytes)
		return -EBADMSG;
	arrival->answer.have = (uint64_t)st.st_size;
	return 0;
}

/* 0, and the answer is sent; or not, and so it is. */
static int take_head(struct arrival *arrival)
{
	static const char taken[] = "a machine of that name runs there";
	uint8_t bytes[PARCEL_HEAD_BYTES];
	int error;

	if (!wire_line_receive(&arrival->line, bytes, sizeof(bytes)))
		return -ECONNRESET;
	error = parcel_take_head(bytes, &arrival->head);
	if (!error && arrival->head.bytes > arrival->listen->most_bytes)
		error = -EFBIG;
	if (!error && runs_here(arrival->head.name))
		error = -EADDRINUSE;
	if (!error)
		error = open_parcel(arrival);
	if (!answer(arrival, error, error == -EADDRINUSE ? taken : ""))
		return -ECONNRESET;
	return error;
}

/* 1: a piece; 0: the last; -EBADMSG: it lies; -ECONNRESET; -errno of the host. */
static int take_piece(struct arrival *arrival, uint32_t *ret_crc)
{
	static uint8_t data[PARCEL_PIECE_BYTES];
	uint8_t head[PARCEL_PIECE_HEAD_BYTES];
	struct parcel_piece piece;
	ssize_t written;

	if (!wire_line_receive(&arrival->line, head, sizeof(head)))
		return -ECONNRESET;
	if (parcel_take_piece(head, arrival->answer.have, arrival->head.bytes, &piece))
		return -EBADMSG;
	*ret_crc = piece.crc;
	if (!piece.bytes)
		return 0;
	if (!wire_line_receive(&arrival->line, data, piece.bytes))
		return -ECONNRESET;
	if (parcel_checksum(0, data, piece.bytes) != piece.crc)
		return -EBADMSG;
	written = pwrite(arrival->file, data, piece.bytes, (off_t)piece.at);
	if (written != (ssize_t)piece.bytes)
		return written < 0 ? -errno : -ENOSPC;
	arrival->answer.have += piece.bytes;
	return 1;
}

/* All of it, from however many connections it came. */
static bool is_whole(const struct arrival *arrival, uint32_t crc)
{
	static uint8_t data[PARCEL_PIECE_BYTES];
	uint64_t at = 0;
	uint32_t found = 0;
	ssize_t got;

	for (; (got = pread(arrival->file, data, sizeof(data), (off_t)at)) > 0; at += (uint64_t)got)
		found = parcel_checksum(found, data, (size_t)got);
	return !got && at == arrival->head.bytes && found == crc;
}

/* ---- it goes on ---- */

/* As umbra run --restore does, whose words are kept. The exit code. */
static int restore(const struct arrival *arrival, char *said, size_t bytes)
{
	FILE *output = tmpfile();
	pid_t child = output ? fork() : -1;
	int status = -1;
	size_t got;

	if (!child) {
		dup2(fileno(output), STDERR_FILENO);
		dup2(fileno(output), STDOUT_FILENO);
		execl("/proc/self/exe", "umbra", "run", "--restore", arrival->path, "--name",
		      arrival->head.name, "--detach", (char *)NULL);
		_exit(EXIT_FAULT);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (output)
		rewind(output);
	got = output ? fread(said, 1, bytes - 1, output) : 0;
	said[got] = 0;
	said[strcspn(said, "\n")] = 0;
	if (output)
		fclose(output);
	return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAULT;
}

static void begin_machine(struct arrival *arrival)
{
	char said[OUTPUT_BYTES];
	int code = restore(arrival, said, sizeof(said));

	printf("%s %s\n", arrival->head.name, code ? "was refused" : "has arrived");
	fflush(stdout);
	answer(arrival, code ? -EBADMSG : 0, code ? said : "");
}

/* Whether there is nothing more to come of this parcel. */
static bool take_parcel(struct arrival *arrival)
{
	uint32_t crc = 0;
	int got = take_head(arrival);

	if (got == -EBUSY || got == -ECONNRESET)
		return false;
	if (got)
		return true;
	do
		got = take_piece(arrival, &crc);
	while (got > 0);
	if (got == -ECONNRESET)
		return false;
	if (got)
		answer(arrival, got, got == -EBADMSG ? "what came is not what was announced" : "");
	else if (!is_whole(arrival, crc))
		answer(arrival, -EBADMSG, "what came is not what its checksum says");
	else
		begin_machine(arrival);
	return true;
}

/* Only one that is this connection's alone. */
static void remove_parcel(const struct arrival *arrival)
{
	if (arrival->file >= 0 && !flock(arrival->file, LOCK_EX | LOCK_NB))
		unlink(arrival->path);
}

static int serve(const struct listen *listen, int connection)
{
	static struct arrival arrival;
	bool is_over;
	int error;

	arrival = (struct arrival){ .listen = listen, .file = -1 };
	error = wire_line_open(connection, true, listen->key, &arrival.line);
	if (error)
		return error;
	is_over = take_parcel(&arrival);
	if (is_over || !arrival.answer.have)
		remove_parcel(&arrival);
	wire_line_close(&arrival.line);
	return 0;
}

/* ---- parcels that nobody brings to an end ---- */

static void remove_if_old(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_uid == geteuid() && time(NULL) - st.st_mtime > OLD_S &&
	    !flock(fd, LOCK_EX | LOCK_NB))
		unlinkat(folder, name, 0);
	close(fd);
}

static void remove_old(const char *folder)
{
	DIR *listing = opendir(folder);
	const struct dirent *entry;

	while (listing && (entry = readdir(listing)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)))
			remove_if_old(dirfd(listing), entry->d_name);
	if (listing)
		closedir(listing);
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
		remove_old(listen->folder);
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

int verb_listen(int argc, char **argv)
{
	static const struct option longs[] = { { "key", 1, 0, 'k' },
					       { "make-key", 1, 0, 'm' },
					       { "folder", 1, 0, 'f' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct listen listen = { .folder = "/var/tmp" };
	const char *key = NULL;
	int option;
	int code;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (option) {
		case 'k': key = optarg; break;
		case 'm': return wire_key_make(optarg);
		case 'f': listen.folder = optarg; break;
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
