/* See wire_line.h. */
#include "wire_line.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "helper_program.h"
#include "lib/pass_fds.h"

/* umbra-wire's descriptors and its exit codes; ours lie above them while it is started */
enum { FIRST_FD = 3, FDS = 3, ABOVE_FD = 10, EXIT_OTHER_KEY = 2, DIGITS = 2 * WIRE_KEY_BYTES };
enum { GOES_MS = 5000 };

/* ---- the key ---- */

static bool parse_key(const char *text, uint8_t ret[WIRE_KEY_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	if (strspn(text, digits) != DIGITS || (text[DIGITS] && text[DIGITS] != '\n'))
		return false;
	for (unsigned n = 0; n < WIRE_KEY_BYTES; n++)
		ret[n] = (uint8_t)((strchr(digits, text[2 * n]) - digits) << 4 |
				   (strchr(digits, text[2 * n + 1]) - digits));
	return true;
}

int wire_key_read(const char *path, struct wire_secret *ret)
{
	char text[DIGITS + 2] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool is_read;

	if (fd < 0)
		return complain(EXIT_USAGE, strerror(errno), path,
				"umbra listen --make-key FILE makes one, for both sides");
	is_read = !fstat(fd, &st) && read(fd, text, DIGITS + 1) >= DIGITS;
	close(fd);
	if (is_read && st.st_mode & (S_IRWXG | S_IRWXO))
		return complain(EXIT_USAGE, "others can read this key", path, "chmod 600 it");
	ret->bytes = WIRE_KEY_BYTES;
	return is_read && parse_key(text, ret->data)
		       ? 0
		       : complain(EXIT_USAGE, "not a key of 64 hexadecimal digits", path,
				  "umbra listen --make-key FILE makes one");
}

int wire_key_make(const char *path)
{
	uint8_t key[WIRE_KEY_BYTES];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

	if (!file)
		return complain(EXIT_USAGE, strerror(errno), path, "name a new file");
	if (getrandom(key, sizeof(key), 0) == sizeof(key))
		for (unsigned n = 0; n < WIRE_KEY_BYTES; n++)
			fprintf(file, "%02x", key[n]);
	fputs("\n", file);
	return fclose(file) ? complain(EXIT_UNUSABLE, strerror(errno), path, "name a new file") : 0;
}

/* ---- certificates ---- */

static bool put_part(struct wire_secret *secret, const void *data, size_t bytes)
{
	const uint32_t length = (uint32_t)bytes;

	if (bytes > sizeof(secret->data) - secret->bytes - sizeof(length))
		return false;
	memcpy(secret->data + secret->bytes, &length, sizeof(length));
	memcpy(secret->data + secret->bytes + sizeof(length), data, bytes);
	secret->bytes += sizeof(length) + bytes;
	return true;
}

static int put_file(struct wire_secret *secret, const char *path, bool is_private)
{
	static uint8_t data[WIRE_SECRET_BYTES];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t got;

	if (fd < 0)
		return complain(EXIT_USAGE, strerror(errno), path, "name a file in PEM");
	got = fstat(fd, &st) ? -1 : read(fd, data, sizeof(data));
	close(fd);
	if (got > 0 && is_private && st.st_mode & (S_IRWXG | S_IRWXO))
		return complain(EXIT_USAGE, "others can read this key", path, "chmod 600 it");
	return got > 0 && put_part(secret, data, (size_t)got)
		       ? 0
		       : complain(EXIT_USAGE, "not a file in PEM, or too long", path,
				  "name one of at most 50,000 bytes");
}

int wire_secret_read(const char *key, const struct wire_certificates *certificates,
		     const char *host, struct wire_secret *ret)
{
	const bool has_all = certificates->certificate && certificates->key &&
			     certificates->authority;
	const bool has_any = certificates->certificate || certificates->key ||
			     certificates->authority;
	int code;

	if (!key == !has_any || has_all != has_any)
		return complain(EXIT_USAGE, key ? "a key and certificates" : "no key",
				has_any ? "--cert, --cert-key, --ca" : "--key",
				"say --key FILE, or all of --cert, --cert-key and --ca");
	if (key)
		return wire_key_read(key, ret);
	ret->data[0] = WIRE_CERTIFICATES;
	ret->bytes = 1;
	code = put_file(ret, certificates->certificate, false);
	if (!code)
		code = put_file(ret, certificates->key, true);
	if (!code)
		code = put_file(ret, certificates->authority, false);
	if (!code && !put_part(ret, host, strlen(host)))
		code = complain(EXIT_USAGE, "certificates that are too long", "--cert",
				"leave out those of the authority");
	return code;
}

/* ---- the line ---- */

/* fds: -1: it comes later. */
static int start(const int fds[FDS], const char *mode, bool asks_keys, pid_t *ret)
{
	static char *const nothing[] = { NULL };
	const char *words[] = { "umbra-wire", mode, asks_keys ? "keys" : NULL, NULL };
	posix_spawn_file_actions_t actions;
	char path[PATH_MAX];
	int error = helper_program_find("umbra-wire", path, sizeof(path));

	if (error)
		return error;
	posix_spawn_file_actions_init(&actions);
	for (int n = 0; n < FDS; n++)
		if (fds[n] >= 0)
			posix_spawn_file_actions_adddup2(&actions, fds[n], FIRST_FD + n);
	error = posix_spawn(ret, path, &actions, NULL, (char *const *)(uintptr_t)words, nothing);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

static int above(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_FD); }

/* A pipe that holds it: in no argument, and in no file but its own. */
static int give_secret(const struct wire_secret *secret)
{
	int ends[2];
	int fd = -1;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	if (write(ends[1], secret->data, secret->bytes) == (ssize_t)secret->bytes)
		fd = above(ends[0]);
	close(ends[0]);
	close(ends[1]);
	return fd;
}

/* It ends once the other side has: of one that does not nobody waits for ever. */
static void wait_or_end(pid_t process)
{
	struct pollfd end = { .fd = (int)syscall(SYS_pidfd_open, process, 0), .events = POLLIN };

	if (end.fd < 0 || poll(&end, 1, GOES_MS) <= 0)
		kill(process, SIGKILL);
	if (end.fd >= 0)
		close(end.fd);
}

static int end_of(const struct wire_line *line)
{
	const bool was_refused = line->sealed && line->sealed->was_refused;
	int status = 0;

	if (line->plain >= 0)
		close(line->plain);
	if (line->process) {
		wait_or_end(line->process);
		while (waitpid(line->process, &status, 0) < 0 && errno == EINTR)
			;
	}
	if (line->connection >= 0)
		close(line->connection);
	close(line->socket);
	free(line->sealed);
	return was_refused || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_OTHER_KEY)
		       ? -EACCES
		       : -ECONNRESET;
}

void wire_line_be_patient(const struct wire_line *line)
{
	const struct timeval patience = { .tv_sec = WIRE_PATIENCE_S };

	setsockopt(line->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(line->socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

void wire_line_tune(int connection)
{
	const int on = 1;
	const int unsent_bytes = 128 << 10;
	const int asks_after_s = WIRE_PATIENCE_S / 2;
	const int asks_every_s = WIRE_PATIENCE_S / 4;
	const int asks = 2;
	const unsigned gone_ms = WIRE_PATIENCE_S * 1000;

	setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(connection, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof(unsent_bytes));
	setsockopt(connection, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_ms, sizeof(gone_ms));
	setsockopt(connection, IPPROTO_TCP, TCP_KEEPIDLE, &asks_after_s, sizeof(asks_after_s));
	setsockopt(connection, IPPROTO_TCP, TCP_KEEPINTVL, &asks_every_s, sizeof(asks_every_s));
	setsockopt(connection, IPPROTO_TCP, TCP_KEEPCNT, &asks, sizeof(asks));
	setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* above_connection is closed; -1, and no secret: both come later. */
static int begin(int above_connection, const char *mode, bool asks_keys,
		 const struct wire_secret *secret, struct wire_line *ret)
{
	int pair[2] = { -1, -1 };
	int error = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
	const int fds[FDS] = { above_connection, error ? -1 : above(pair[1]),
			       secret ? give_secret(secret) : -1 };

	if (!error && (fds[1] < 0 || (secret && (fds[0] < 0 || fds[2] < 0))))
		error = -EMFILE;
	if (!error)
		error = start(fds, mode, asks_keys, &ret->process);
	for (unsigned n = 0; n < FDS; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	if (pair[1] >= 0)
		close(pair[1]);
	ret->socket = pair[0];
	ret->connection = ret->plain = -1;
	ret->sealed = NULL;
	if (error)
		close(pair[0]);
	return error;
}

/* asks_keys: the connection is kept, too: what is said on it is sealed here. */
static int begin_on(int connection, bool accepts, bool asks_keys, const struct wire_secret *secret,
		    struct wire_line *ret)
{
	const int error = begin(above(connection), accepts ? "accept" : "connect", asks_keys,
				secret, ret);

	if (error || !asks_keys)
		close(connection);
	else
		ret->connection = connection;
	return error;
}

int wire_line_begin(int connection, bool accepts, const struct wire_secret *secret,
		    struct wire_line *ret)
{
	return begin_on(connection, accepts, true, secret, ret);
}

int wire_line_begin_early(struct wire_line *ret) { return begin(-1, "later", true, NULL, ret); }

static int send_both(const struct wire_line *line, const int fds[WIRE_LATER_FDS])
{
	const uint8_t byte = 0;

	return pass_fds(line->socket, &byte, sizeof(byte), fds, WIRE_LATER_FDS) ? 0 : -ECONNRESET;
}

int wire_line_give(struct wire_line *line, int connection, const struct wire_secret *secret)
{
	const int fds[WIRE_LATER_FDS] = { connection, give_secret(secret) };
	const int error = fds[1] < 0 ? -EMFILE : send_both(line, fds);

	if (fds[1] >= 0)
		close(fds[1]);
	if (error)
		close(connection);
	else
		line->connection = connection;
	return error;
}

int wire_line_listen(int listener, const struct wire_secret *secret, struct wire_line *ret)
{
	return begin(above(listener), "wait", true, secret, ret);
}

/* A word of umbra-wire's, and the descriptor that has come with it, or -1. False: it has ended. */
static bool hear_wire(const struct wire_line *line, uint8_t *ret_word, int *ret_fd)
{
	unsigned count;

	*ret_fd = -1;
	return take_fds(line->socket, ret_word, 1, ret_fd, 1, &count) == 1;
}

/* From now on: the connection, and nobody between. */
static int take_keys(struct wire_line *line)
{
	struct wire_keys keys;

	if (line->connection < 0 || !wire_receive(line->socket, &keys, sizeof(keys)))
		return -ECONNRESET;
	line->sealed = wire_sealed_make(&keys);
	if (!line->sealed)
		return -ENOMEM;
	line->plain = line->socket;
	line->socket = line->connection;
	line->connection = -1;
	return 0;
}

/* It goes through umbra-wire. */
static int leave_connection(struct wire_line *line)
{
	if (line->connection >= 0)
		close(line->connection);
	line->connection = -1;
	return 0;
}

int wire_line_finish(struct wire_line *line)
{
	uint8_t word = 0;
	int error = -EPROTO;
	int fd;

	if (!hear_wire(line, &word, &fd))
		return end_of(line);
	if (word == WIRE_CONNECTION && fd >= 0 && line->connection < 0) {
		line->connection = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	if (word == WIRE_SHOWN)
		return leave_connection(line);
	if (word == WIRE_KEYS)
		error = take_keys(line);
	if (error)
		end_of(line);
	return error;
}

int wire_line_open(int connection, bool accepts, const struct wire_secret *secret,
		   struct wire_line *ret)
{
	const int error = begin_on(connection, accepts, false, secret, ret);

	return error ? error : wire_line_finish(ret);
}

bool wire_line_send(const struct wire_line *line, const void *from, size_t bytes)
{
	assert(line->socket >= 0);
	return line->sealed ? wire_sealed_send(line->sealed, line->socket, from, bytes)
			    : wire_send(line->socket, from, bytes);
}

bool wire_line_receive(const struct wire_line *line, void *to, size_t bytes)
{
	assert(line->socket >= 0);
	return line->sealed ? wire_sealed_receive(line->sealed, line->socket, to, bytes)
			    : wire_receive(line->socket, to, bytes);
}

bool wire_line_holds(const struct wire_line *line)
{
	return line->sealed && wire_sealed_holds(line->sealed);
}

/* ---- to another process ---- */

struct passed { bool is_sealed; struct wire_keys keys; };

bool wire_line_pass(const struct wire_line *line, int socket)
{
	struct passed passed = { .is_sealed = line->sealed };
	uint8_t byte;

	if (line->sealed && !wire_sealed_is_empty(line->sealed))
		return false;
	if (line->sealed)
		passed.keys = wire_sealed_keys(line->sealed);
	return pass_fds(socket, &passed, sizeof(passed), &line->socket, 1) &&
	       read(socket, &byte, 1) == 1;
}

bool wire_line_take(int socket, struct wire_line *ret)
{
	struct passed passed;
	unsigned count;
	bool is_whole;

	*ret = (struct wire_line){ .socket = -1, .connection = -1, .plain = -1 };
	is_whole = take_fds(socket, &passed, sizeof(passed), &ret->socket, 1, &count) ==
			   sizeof(passed) &&
		   count == 1;
	if (is_whole && passed.is_sealed)
		ret->sealed = wire_sealed_make(&passed.keys);
	if (is_whole && (!passed.is_sealed || ret->sealed) && write(socket, "", 1) == 1)
		return true;
	free(ret->sealed);
	if (ret->socket >= 0)
		close(ret->socket);
	return false;
}

/* ---- to the pager, and back ---- */

bool wire_line_can_be_handed(const struct wire_line *line)
{
	return line->sealed && wire_sealed_is_empty(line->sealed);
}

struct wire_keys wire_line_hand(struct wire_line *line, int socket)
{
	const struct wire_keys keys = wire_sealed_keys(line->sealed);

	assert(wire_line_can_be_handed(line));
	free(line->sealed);
	line->sealed = NULL;
	line->connection = line->socket;
	line->socket = socket;
	wire_line_be_patient(line);
	return keys;
}

int wire_line_hand_back(struct wire_line *line, const struct wire_keys *keys)
{
	const int socket = line->socket;

	line->sealed = wire_sealed_make(keys);
	if (!line->sealed)
		return -1;
	line->socket = line->connection;
	line->connection = -1;
	return socket;
}

int wire_line_close(struct wire_line *line)
{
	if (line->sealed)
		wire_sealed_end(line->sealed, line->socket, GOES_MS);
	else
		shutdown(line->socket, SHUT_RDWR);
	return end_of(line);
}
