/*
 * umbra far serve: a disk behind TCP (share/far.h). Each connection has a thread, and is behind
 * umbra-wire.
 *
 *   - Who has said hello last is served, and nobody else: what a connection before it still asks is
 *     left. So a request of a connection that was lost is done before the next hello is answered,
 *     or not at all.
 *   - What has changed the disk is recorded before it is answered, and answered again from that.
 *     The record is this process's: of one that was started again it is empty, and what was done
 *     and not answered is done once more, with the same bytes.
 *   - FAR_CONNECTIONS at a time that have shown the key, and as many again that are about to as
 *     FAR_HANDSHAKES says; the next one is closed. A hello closes the connection that was served
 *     before, and one whose other side is gone ends (wire_line_tune()).
 *
 * Lock: of the disk and the record, not held while anything is sent.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk_cli.h"
#include "far_verb.h"
#include "place.h"
#include "process/block_server.h"
#include "share/far.h"

enum { FAR_CONNECTIONS = 4, FAR_HANDSHAKES = 32 };
static const char default_port[] = "4641";

struct server {
	const struct far_choice *choice;
	struct disk *disk;
	struct block_disk is;
	pthread_mutex_t lock;
	struct far_record record;
	uint64_t current, last_connection;
	struct connection *served; /* who has said hello last, while that is there */
	unsigned connections, handshakes;
	uint64_t changes, reads, again, left;
};

struct connection {
	struct server *server;
	int fd;
	uint64_t number;
	struct wire_line line;
	union far_message message;
	struct far_head head;
	uint8_t *data;
};

static volatile sig_atomic_t is_told_to_end;

static void on_end(int signal)
{
	(void)signal;
	is_told_to_end = 1;
}

/* ---- requests, with the lock ---- */

static struct share_disk_welcome greet(struct connection *connection)
{
	struct server *server = connection->server;
	const struct share_disk_hello *hello = &connection->message.hello;
	struct share_disk_welcome said = { .kind = SHARE_DISK_WELCOME,
					   .round = hello->round,
					   .size_bytes = server->is.size_bytes,
					   .sector_bytes = server->is.sector_bytes,
					   .physical_bytes = server->is.physical_bytes };

	if (hello->least <= FAR_DISK_MOST && hello->most >= SHARE_DISK_1_1)
		said.version = hello->most < FAR_DISK_MOST ? hello->most : FAR_DISK_MOST;
	if (server->choice->read_only)
		said.flags = SHARE_DISK_READ_ONLY;
	memcpy(said.id, server->is.id, sizeof(said.id));
	server->current = connection->number;
	far_record_begin(&server->record, hello->session);
	return said;
}

static uint32_t change(struct server *server, const struct share_disk_request *asked,
		       const uint8_t *data)
{
	int error = server->choice->read_only ? -EROFS : 0;

	if (!error && asked->act == SHARE_DISK_WRITE)
		error = disk_write(server->disk, asked->offset, data, asked->bytes);
	else if (!error && asked->act == SHARE_DISK_ZERO)
		error = disk_zero(server->disk, asked->offset, asked->bytes);
	else if (!error)
		error = disk_flush(server->disk);
	server->changes += !error;
	if (!error)
		return SHARE_DISK_GOOD;
	return error == -ENOSPC ? SHARE_DISK_NO_SPACE : SHARE_DISK_FAILED;
}

static bool is_in_disk(const struct server *server, const struct share_disk_request *asked)
{
	return asked->act == SHARE_DISK_FLUSH ||
	       (asked->offset <= server->is.size_bytes &&
		asked->bytes <= server->is.size_bytes - asked->offset &&
		asked->offset % server->is.sector_bytes == 0 &&
		asked->bytes % server->is.sector_bytes == 0);
}

/* False: it is left. */
static bool execute(struct connection *connection, uint32_t *ret_status, uint32_t *ret_bytes)
{
	struct server *server = connection->server;
	const struct share_disk_request *asked = &connection->message.request;
	const enum far_found found = far_record_find(&server->record, asked, ret_status);

	*ret_bytes = 0;
	if (server->current != connection->number || found == FAR_PAST) {
		server->left++;
		return false;
	}
	server->again += found == FAR_KNOWN;
	if (found == FAR_KNOWN)
		return true;
	if (!is_in_disk(server, asked)) {
		*ret_status = SHARE_DISK_FAILED;
	} else if (asked->act == SHARE_DISK_READ) {
		server->reads++;
		*ret_status = disk_read(server->disk, asked->offset, connection->data,
					asked->bytes)
				      ? SHARE_DISK_FAILED
				      : SHARE_DISK_GOOD;
		*ret_bytes = *ret_status ? 0 : (uint32_t)asked->bytes;
		return true;
	} else {
		*ret_status = change(server, asked, connection->data);
	}
	far_record_put(&server->record, asked->number, *ret_status);
	return true;
}

/* ---- a connection ---- */

static bool say(const struct connection *connection, const void *message, uint32_t message_bytes,
		uint32_t data_bytes)
{
	uint8_t head[FAR_HEAD_BYTES];

	far_put_head(message_bytes, data_bytes, head);
	return wire_line_send(&connection->line, head, sizeof(head)) &&
	       wire_line_send(&connection->line, message, message_bytes) &&
	       wire_line_send(&connection->line, connection->data, data_bytes);
}

static bool hear(struct connection *connection)
{
	uint8_t head[FAR_HEAD_BYTES];

	return wire_line_receive(&connection->line, head, sizeof(head)) &&
	       !far_take_head(head, &connection->head) &&
	       wire_line_receive(&connection->line, &connection->message,
				 connection->head.message_bytes) &&
	       !far_check(&connection->head, &connection->message, FAR_ASKS) &&
	       wire_line_receive(&connection->line, connection->data,
				 connection->head.data_bytes);
}

static bool answer_hello(struct connection *connection)
{
	struct server *server = connection->server;
	struct share_disk_welcome said;

	pthread_mutex_lock(&server->lock);
	if (server->served && server->served != connection)
		shutdown(server->served->line.socket, SHUT_RDWR);
	server->served = connection;
	said = greet(connection);
	pthread_mutex_unlock(&server->lock);
	return say(connection, &said, sizeof(said), 0);
}

static bool answer_request(struct connection *connection)
{
	struct share_disk_done done = { .kind = SHARE_DISK_DONE,
					.number = connection->message.request.number };
	uint32_t bytes;
	bool answers;

	pthread_mutex_lock(&connection->server->lock);
	answers = execute(connection, &done.status, &bytes);
	pthread_mutex_unlock(&connection->server->lock);
	return !answers || say(connection, &done, sizeof(done), bytes);
}

/* After its handshake; false: there are too many. */
static bool enter(struct connection *connection, bool has_key)
{
	struct server *server = connection->server;
	bool enters;

	pthread_mutex_lock(&server->lock);
	server->handshakes--;
	enters = has_key && server->connections < FAR_CONNECTIONS;
	server->connections += enters;
	pthread_mutex_unlock(&server->lock);
	return enters;
}

/* Its socket is nobody's to shut down any more. */
static void leave(struct connection *connection)
{
	struct server *server = connection->server;

	pthread_mutex_lock(&server->lock);
	server->connections--;
	if (server->served == connection)
		server->served = NULL;
	pthread_mutex_unlock(&server->lock);
}

static void *serve_connection(void *context)
{
	struct connection *connection = context;
	const struct wire_secret *secret = &connection->server->choice->secret;
	const bool has_key = !wire_line_open(connection->fd, true, secret, &connection->line);
	bool goes_on = enter(connection, has_key);

	if (goes_on) {
		while (goes_on && hear(connection))
			goes_on = connection->message.kind == SHARE_DISK_HELLO
					  ? answer_hello(connection)
					  : answer_request(connection);
		leave(connection);
	}
	if (has_key)
		wire_line_close(&connection->line);
	free(connection->data);
	free(connection);
	return NULL;
}

/* The descriptor is the connection's, or closed. */
static void begin_connection(struct server *server, int fd)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	uint8_t *data = malloc(FAR_DATA_MAX_BYTES);
	bool is_begun = false;
	pthread_t thread;

	wire_line_tune(fd);
	pthread_mutex_lock(&server->lock);
	if (connection && data && server->handshakes < FAR_HANDSHAKES) {
		*connection = (struct connection){ .server = server, .fd = fd, .data = data,
						   .number = ++server->last_connection };
		is_begun = !pthread_create(&thread, NULL, serve_connection, connection);
		server->handshakes += is_begun;
	}
	pthread_mutex_unlock(&server->lock);
	if (is_begun) {
		pthread_detach(thread);
		return;
	}
	close(fd);
	free(data);
	free(connection);
}

/* ---- all of it ---- */

static int open_disk(const struct far_choice *choice, struct disk **ret)
{
	const struct arguments arguments = { .file = choice->what, .format = choice->format,
					     .read_only = choice->read_only };
	const unsigned actions = IMAGE_ACTION(choice->read_only ? ACTION_READ : ACTION_WRITE) |
				 IMAGE_ACTION(ACTION_ATTACH) | IMAGE_ACTION(ACTION_EXPORT);
	const struct disk_options options = { .write = !choice->read_only };

	return disk_cli_open_with(&arguments, choice->what, choice->format, actions, options, ret);
}

static int serve_all(struct server *server, int listener)
{
	const struct sigaction end = { .sa_handler = on_end };
	struct pollfd waiting = { .fd = listener, .events = POLLIN };
	sigset_t ends;
	sigset_t others;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &ends, &others);
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	place_say(listener);
	/* only while it waits: so none is missed, and no other thread has one */
	while (ppoll(&waiting, 1, NULL, &others) > 0 || !is_told_to_end) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			begin_connection(server, fd);
	}
	return 0;
}

int far_serve(const struct far_choice *choice)
{
	static struct server server;
	struct place place;
	int listener;
	int code;

	if (place_parse(choice->place, default_port, &place))
		return complain(EXIT_USAGE, "not [ADDRESS:]PORT", choice->place,
				"say for example 127.0.0.1:4641");
	server = (struct server){ .choice = choice };
	pthread_mutex_init(&server.lock, NULL);
	code = open_disk(choice, &server.disk);
	if (code)
		return code;
	block_describe(server.disk, !choice->read_only, &server.is);
	listener = place_listen(&place);
	code = listener < 0 ? complain(EXIT_USAGE, strerror(-listener), choice->place,
				       "name a port where nobody listens")
			    : serve_all(&server, listener);
	/* kept: no thread touches the disk any more */
	pthread_mutex_lock(&server.lock);
	printf("%lu changes, %lu reads, %lu answered again, %lu left\n", server.changes,
	       server.reads, server.again, server.left);
	return disk_access_close(server.disk, code);
}
