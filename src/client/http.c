/* See umbra-client.h: a request on a connection of its own, and its answer read whole. */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client_internal.h"

enum { KEY_BYTES = 256, SECONDS = 120, ANSWER_BYTES = 64 << 20, HEAD_BYTES = 512, PIECE = 16384 };
enum { STATUS_LEAST = 100, STATUS_MOST = 599, MS_PER_S = 1000, NS_PER_MS = 1000000 };

struct umbra_client { struct sockaddr_un address; unsigned seconds; char key[KEY_BYTES]; };

/* ---- the client ---- */

static int default_path(char *path, size_t bytes)
{
	const char *folder = getenv("XDG_RUNTIME_DIR");
	int used = folder && *folder
			   ? snprintf(path, bytes, "%s/umbra/.daemon", folder)
			   : snprintf(path, bytes, "/tmp/umbra-%u/.daemon", (unsigned)getuid());

	return used < 0 || (size_t)used >= bytes ? -ENAMETOOLONG : 0;
}

struct umbra_client *umbra_client_open(const char *socket_path)
{
	struct umbra_client *client = calloc(1, sizeof(*client));
	size_t room = sizeof(client->address.sun_path);
	int error;

	if (!client)
		return NULL;
	client->seconds = SECONDS;
	client->address.sun_family = AF_UNIX;
	if (socket_path)
		error = snprintf(client->address.sun_path, room, "%s", socket_path) >= (int)room
				? -ENAMETOOLONG
				: 0;
	else
		error = default_path(client->address.sun_path, room);
	if (!error)
		return client;
	free(client);
	errno = -error;
	return NULL;
}

void umbra_client_close(struct umbra_client *client) { free(client); }

void umbra_client_set_seconds(struct umbra_client *client, unsigned seconds)
{
	client->seconds = seconds;
}

void umbra_client_set_key(struct umbra_client *client, const char *key)
{
	snprintf(client->key, sizeof(client->key), "%s", key);
}

void umbra_answer_free(struct umbra_answer *answer)
{
	free(answer->text);
	*answer = (struct umbra_answer){ 0 };
}

/* ---- time ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * MS_PER_S + now.tv_nsec / NS_PER_MS;
}

/* end_ms: 0: none. */
static int await(int fd, short events, int64_t end_ms)
{
	struct pollfd ready = { .fd = fd, .events = events };
	int64_t left_ms = end_ms ? end_ms - now_ms() : -1;
	int count;

	if (end_ms && left_ms <= 0)
		return -ETIMEDOUT;
	count = poll(&ready, 1, (int)left_ms);
	return count < 0 && errno != EINTR ? -errno : 0;
}

/* ---- a request ---- */

static int connect_to(const struct umbra_client *client)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&client->address, sizeof(client->address)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static int send_all(int fd, const char *data, size_t bytes, int64_t end_ms)
{
	while (bytes) {
		ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		int error = sent < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;

		if (!error && sent < 0)
			error = await(fd, POLLOUT, end_ms);
		if (error)
			return error;
		data += sent > 0 ? sent : 0;
		bytes -= sent > 0 ? (size_t)sent : 0;
	}
	return 0;
}

/* No header but those that are meant: a key holds no end of a line. */
static int send_request(struct umbra_client *client, int fd, const char *const request[3],
			int64_t end_ms)
{
	const char *body = request[2];
	const size_t body_bytes = body ? strlen(body) : 0;
	char *head = NULL;
	int bytes;
	int error;

	if (strpbrk(client->key, "\r\n") || strpbrk(request[1], " \r\n"))
		return -EINVAL;
	bytes = asprintf(&head,
			 "%s %s HTTP/1.1\r\nHost: umbra\r\nConnection: close\r\n%s%s%s%s"
			 "Content-Length: %zu\r\n\r\n",
			 request[0], request[1], *client->key ? "Idempotency-Key: " : "",
			 client->key, *client->key ? "\r\n" : "",
			 body ? "Content-Type: application/json\r\n" : "", body_bytes);
	client->key[0] = 0;
	if (bytes < 0)
		return -ENOMEM;
	error = send_all(fd, head, (size_t)bytes, end_ms);
	free(head);
	return error || !body ? error : send_all(fd, body, body_bytes, end_ms);
}

/* ---- its answer ---- */

struct whole { char *data; size_t bytes, room; };

static int read_piece(int fd, struct whole *whole)
{
	ssize_t got;

	if (whole->room - whole->bytes < PIECE) {
		size_t room = (whole->room + PIECE) * 2;
		char *grown = whole->bytes < ANSWER_BYTES ? realloc(whole->data, room + 1) : NULL;

		if (!grown)
			return whole->bytes < ANSWER_BYTES ? -ENOMEM : -EMSGSIZE;
		whole->data = grown;
		whole->room = room;
	}
	got = recv(fd, whole->data + whole->bytes, whole->room - whole->bytes, MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	whole->bytes += (size_t)got;
	whole->data[whole->bytes] = 0;
	return got > 0;
}

/* To its end. */
static int read_whole(int fd, struct whole *whole, int64_t end_ms)
{
	int got = 1;

	while (got > 0) {
		got = read_piece(fd, whole);
		if (got == -EAGAIN || got == -EINTR)
			got = await(fd, POLLIN, end_ms) ?: 1;
	}
	return got;
}

/* The value of this header, which ends at the line's end; NULL: none. */
static const char *header_in(const char *head, const char *name)
{
	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (!strncasecmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			return line + strlen(name) + 1 + strspn(line + strlen(name) + 1, " ");
	}
	return NULL;
}

static int take_answer(struct whole *whole, struct umbra_answer *ret)
{
	char *end = whole->data ? strstr(whole->data, "\r\n\r\n") : NULL;
	const char *length;
	const char *location;
	size_t head_bytes;

	if (!end || sscanf(whole->data, "HTTP/1.1 %u ", &ret->status) != 1 ||
	    ret->status < STATUS_LEAST || ret->status > STATUS_MOST)
		return end ? -EPROTO : -ECONNRESET;
	head_bytes = (size_t)(end - whole->data) + strlen("\r\n\r\n");
	end[2] = 0;
	length = header_in(whole->data, "Content-Length");
	location = header_in(whole->data, "Location");
	ret->bytes = whole->bytes - head_bytes;
	if (!length || strtoull(length, NULL, 10) != ret->bytes)
		return length ? -ECONNRESET : -EPROTO;
	if (location)
		snprintf(ret->location, sizeof(ret->location), "%.*s",
			 (int)strcspn(location, "\r\n"), location);
	memmove(whole->data, whole->data + head_bytes, ret->bytes + 1);
	ret->text = whole->data;
	whole->data = NULL;
	return 0;
}

int umbra_client_ask(struct umbra_client *client, const char *method, const char *path,
		     const char *body, struct umbra_answer *ret)
{
	const int64_t end_ms = client->seconds ? now_ms() + (int64_t)client->seconds * MS_PER_S : 0;
	const char *const request[3] = { method, path, body };
	struct whole whole = { 0 };
	int fd = connect_to(client);
	int error = fd < 0 ? fd : send_request(client, fd, request, end_ms);

	*ret = (struct umbra_answer){ 0 };
	/* who is refused may hear why before all was sent */
	if (!error || error == -EPIPE)
		error = read_whole(fd, &whole, end_ms);
	if (!error)
		error = take_answer(&whole, ret);
	if (error)
		*ret = (struct umbra_answer){ 0 };
	free(whole.data);
	if (fd >= 0)
		close(fd);
	return error;
}
