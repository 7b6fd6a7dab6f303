/* See relay.h. */
#include "relay.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * Greets: its first line is still to come. Asks: for the guest's answer. Over: its socket is
 * closed, and GONE was not said or not heard yet.
 */
enum state { FREE, GREETS, ASKS, JOINED, OVER };

enum { LINE_BYTES = 32, POLL_FDS = 3 + CONNECTIONS };

struct line {
	enum state state;
	int fd;
	bool has_empty; /* the first slot is here */
	bool wants_connect, said_gone, heard_gone, host_finished, guest_finished;
	uint32_t port;
	char text[LINE_BYTES];
	unsigned text_used;
	/* of the second slot: so much of its data is yet to be written */
	uint32_t held_at, held_bytes;
};

struct relay {
	const struct relay_options *options;
	uint32_t generation;
	bool has_begun;
	struct slot_server slots;
	struct line line[CONNECTIONS];
};

static unsigned number_of(const struct relay *relay, const struct line *line)
{
	return (unsigned)(line - relay->line);
}

static void line_close(struct relay *relay, struct line *line)
{
	if (line->fd >= 0)
		close(line->fd);
	line->fd = -1;
	if (line->held_bytes)
		slot_answer(&relay->slots, CONNECTIONS + number_of(relay, line), 0);
	line->held_bytes = 0;
	line->state = OVER;
}

/* A client that went before anybody was asked for him. */
static void line_forget(struct line *line)
{
	const bool has_empty = line->has_empty;

	if (line->fd >= 0)
		close(line->fd);
	*line = (struct line){ .fd = -1, .has_empty = has_empty };
}

/* ---- to the guest ---- */

static void put(struct relay *relay, struct line *line, enum connection_kind kind, uint32_t bytes)
{
	const unsigned slot = number_of(relay, line);

	assert(line->has_empty && slot < CONNECTIONS); /* invariant 1 of ipc/connection_slots.h */
	assert(bytes <= CONNECTION_BYTES);
	relay->options->memory->slot[slot].message =
		(struct connection_message){ .kind = kind, .port = line->port, .bytes = bytes };
	line->has_empty = false;
	slot_answer(&relay->slots, slot, 0);
}

static void put_data(struct relay *relay, struct line *line)
{
	uint8_t *data = relay->options->memory->slot[number_of(relay, line)].data;
	const ssize_t got = recv(line->fd, data, CONNECTION_BYTES, MSG_DONTWAIT);

	if (got > 0) {
		put(relay, line, CONNECTION_DATA, (uint32_t)got);
	} else if (!got) {
		line->host_finished = true;
		put(relay, line, CONNECTION_FINISHED, 0);
	} else if (errno != EAGAIN && errno != EINTR) {
		line_close(relay, line);
	}
}

/* What can be said now. */
static void advance(struct relay *relay, struct line *line)
{
	if (line->state == JOINED && line->host_finished && line->guest_finished)
		line_close(relay, line);
	if (line->has_empty && line->wants_connect) {
		line->wants_connect = false;
		put(relay, line, CONNECTION_CONNECT, 0);
	} else if (line->has_empty && line->state == OVER && !line->said_gone) {
		line->said_gone = true;
		put(relay, line, CONNECTION_GONE, 0);
	}
	if (line->state == OVER && line->said_gone && line->heard_gone)
		line_forget(line);
}

/* ---- from the guest ---- */

static void write_held(struct relay *relay, struct line *line)
{
	const unsigned slot = CONNECTIONS + number_of(relay, line);
	const uint8_t *data = relay->options->memory->slot[slot].data + line->held_at;
	const ssize_t put =
		send(line->fd, data, line->held_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	assert(line->held_bytes && line->held_at + line->held_bytes <= CONNECTION_BYTES);
	if (put < 0 && errno != EAGAIN && errno != EINTR) {
		line_close(relay, line);
		return;
	}
	if (put <= 0)
		return;
	line->held_at += (uint32_t)put;
	assert((uint32_t)put <= line->held_bytes);
	line->held_bytes -= (uint32_t)put;
	if (!line->held_bytes)
		slot_answer(&relay->slots, slot, 0);
}

static int connect_to(const struct relay *relay, uint32_t port)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s_%u", relay->options->name, port);
	if (!connect(fd, (const struct sockaddr *)&at, sizeof(at)))
		return fd;
	close(fd);
	return -ECONNREFUSED;
}

static int take_connect(struct relay *relay, struct line *line, uint32_t port)
{
	const unsigned number = number_of(relay, line);
	int fd;

	if (number < CONNECTIONS_OF_HOST || line->state != FREE)
		return -EBADMSG;
	fd = connect_to(relay, port);
	if (fd >= 0) {
		line->fd = fd;
		line->port = port;
		line->state = JOINED;
	}
	slot_answer(&relay->slots, CONNECTIONS + number, fd < 0 ? fd : 0);
	return 0;
}

static int take_opened(struct relay *relay, struct line *line)
{
	char text[LINE_BYTES];
	int bytes;

	if (line->state != ASKS || line->wants_connect)
		return line->state == OVER ? 0 : -EBADMSG;
	/* as others do, a number from 2^30 on */
	bytes = snprintf(text, sizeof(text), "OK %u\n", (1u << 30) + number_of(relay, line));
	line->state = JOINED;
	if (send(line->fd, text, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != bytes)
		line_close(relay, line);
	return 0;
}

/* Data that come while the host's side is gone are for nobody. */
static int take_data(struct relay *relay, struct line *line, uint32_t bytes)
{
	if (!bytes || bytes > CONNECTION_BYTES || line->guest_finished ||
	    (line->state != JOINED && line->state != OVER))
		return -EBADMSG;
	if (line->state == OVER) {
		slot_answer(&relay->slots, CONNECTIONS + number_of(relay, line), 0);
		return 0;
	}
	line->held_at = 0;
	line->held_bytes = bytes;
	write_held(relay, line);
	return 0;
}

static int take_end(struct relay *relay, struct line *line, bool is_gone)
{
	if (line->state != JOINED && line->state != OVER && !(is_gone && line->state == ASKS))
		return -EBADMSG;
	if (line->heard_gone)
		return -EBADMSG;
	line->guest_finished = true;
	line->heard_gone = is_gone;
	if (is_gone && line->state != OVER)
		line_close(relay, line);
	else if (line->state == JOINED)
		shutdown(line->fd, SHUT_WR);
	/* once it is answered the line may be asked for again: it has to be free by then */
	advance(relay, line);
	slot_answer(&relay->slots, CONNECTIONS + number_of(relay, line), 0);
	return 0;
}

static int take_message(struct relay *relay, unsigned slot)
{
	struct line *line = &relay->line[slot - CONNECTIONS];
	struct connection_message message;
	int error;

	memcpy(&message, &relay->options->memory->slot[slot].message, sizeof(message));
	/* what is checked is this copy: no compiler reads the original again */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	switch (message.kind) {
	case CONNECTION_CONNECT: return take_connect(relay, line, message.port);
	case CONNECTION_OPENED:
		error = take_opened(relay, line);
		if (!error)
			slot_answer(&relay->slots, slot, 0);
		return error;
	case CONNECTION_DATA: return take_data(relay, line, message.bytes);
	case CONNECTION_FINISHED: return take_end(relay, line, false);
	case CONNECTION_GONE: return take_end(relay, line, true);
	default: return -EBADMSG;
	}
}

static int take_requests(struct relay *relay)
{
	struct slot_request request;
	int got;

	while ((got = slot_take(&relay->slots, &request)) > 0) {
		if (request.slot < CONNECTIONS)
			relay->line[request.slot].has_empty = true;
		else if (take_message(relay, request.slot))
			return -EBADMSG;
	}
	return got;
}

/* ---- who connects ---- */

static struct line *find_free(struct relay *relay)
{
	for (unsigned n = 0; n < CONNECTIONS_OF_HOST; n++)
		if (relay->line[n].state == FREE && relay->line[n].has_empty)
			return &relay->line[n];
	return NULL;
}

static void take_client(struct relay *relay)
{
	struct line *line = find_free(relay);
	int fd = line ? accept4(relay->options->listener_fd, NULL, NULL,
				SOCK_CLOEXEC | SOCK_NONBLOCK)
		      : -1;

	if (fd < 0)
		return;
	line->fd = fd;
	line->state = GREETS;
}

/* "CONNECT PORT", without its end. */
static bool parse_greeting(const char *text, uint32_t *ret)
{
	static const char word[] = "CONNECT ";
	unsigned long port;
	char *end;

	if (strncmp(text, word, strlen(word)) || text[strlen(word)] < '0' ||
	    text[strlen(word)] > '9')
		return false;
	port = strtoul(text + strlen(word), &end, 10);
	*ret = (uint32_t)port;
	return !*end && port <= UINT32_MAX;
}

/* Byte by byte: what follows the line is the guest's. */
static void take_greeting(struct line *line)
{
	char byte;
	ssize_t got;

	while ((got = recv(line->fd, &byte, 1, MSG_DONTWAIT)) == 1) {
		if (byte != '\n') {
			assert(line->text_used < LINE_BYTES);
			line->text[line->text_used++] = byte;
			if (line->text_used < LINE_BYTES)
				continue;
			line_forget(line);
			return;
		}
		line->text[line->text_used] = 0;
		if (parse_greeting(line->text, &line->port)) {
			line->state = ASKS;
			line->wants_connect = true;
		} else {
			line_forget(line);
		}
		return;
	}
	if (!got || (errno != EAGAIN && errno != EINTR))
		line_forget(line);
}

/* ---- the loop ---- */

static short events_of(const struct line *line)
{
	short events = 0;

	if (line->state == GREETS ||
	    (line->state == JOINED && line->has_empty && !line->host_finished))
		events |= POLLIN;
	if (line->held_bytes)
		events |= POLLOUT;
	return events;
}

static void poll_choose(struct relay *relay, struct pollfd fds[POLL_FDS])
{
	const struct relay_options *options = relay->options;

	fds[0] = (struct pollfd){ .fd = options->end_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = options->doorbell_fd, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = find_free(relay) ? options->listener_fd : -1,
				  .events = POLLIN };
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		const short events = events_of(&relay->line[n]);

		/* what is not waited for would say that its peer is gone again and again */
		fds[3 + n] = (struct pollfd){ .fd = events ? relay->line[n].fd : -1,
					      .events = events };
	}
}

static void serve_line(struct relay *relay, struct line *line, short events)
{
	if (events && line->held_bytes)
		write_held(relay, line);
	if (events && line->state == GREETS)
		take_greeting(line);
	else if (events && line->state == JOINED && line->has_empty && !line->host_finished)
		put_data(relay, line);
	advance(relay, line);
}

/* The machine process knows that it is another one: what lies in the rings is for this one. */
static bool has_begun(struct relay *relay)
{
	const struct connection_memory *memory = relay->options->memory;

	relay->has_begun |=
		__atomic_load_n(&memory->accepted, __ATOMIC_ACQUIRE) == relay->generation;
	return relay->has_begun;
}

/* The doorbell is rung once it may. */
static bool may_sleep(struct relay *relay)
{
	return slot_server_may_sleep(&relay->slots) || !relay->has_begun;
}

static int turn(struct relay *relay)
{
	struct pollfd fds[POLL_FDS];
	int error;

	poll_choose(relay, fds);
	if (poll(fds, POLL_FDS, may_sleep(relay) ? -1 : 0) < 0 && errno != EINTR)
		return -errno;
	slot_server_wakes(&relay->slots, fds[1].revents != 0);
	if (fds[0].revents)
		return 0;
	if (!has_begun(relay))
		return 1;
	error = take_requests(relay);
	if (error)
		return error;
	for (unsigned n = 0; n < CONNECTIONS; n++)
		serve_line(relay, &relay->line[n], fds[3 + n].revents);
	if (fds[2].revents)
		take_client(relay);
	slot_tell(&relay->slots);
	return 1;
}

int relay_serve(const struct relay_options *options)
{
	struct relay relay = { .options = options,
			       .generation = __atomic_load_n(&options->memory->generation,
							     __ATOMIC_ACQUIRE),
			       .slots = { .queue = &options->memory->queue,
					  .slots = CONNECTION_SLOTS,
					  .doorbell_fd = options->doorbell_fd,
					  .answer_fd = options->answer_fd } };
	int got;

	for (unsigned n = 0; n < CONNECTIONS; n++)
		relay.line[n].fd = -1;
	do
		got = turn(&relay);
	while (got > 0);
	return got;
}
