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

#include "lib/check.h"
#include "relay_internal.h"

enum { POLL_FDS = 3 + CONNECTIONS };

static unsigned number_of(const struct relay *relay, const struct relay_line *line)
{
	return (unsigned)(line - relay->line);
}

static void line_close(struct relay *relay, struct relay_line *line)
{
	if (line->fd >= 0)
		close(line->fd);
	line->fd = -1;
	if (line->held_bytes)
		slot_answer(&relay->slots, CONNECTIONS + number_of(relay, line), 0);
	line->held_bytes = 0;
	line->state = LINE_OVER;
}

/* A client that went before anybody was asked for him. */
static void line_forget(struct relay_line *line)
{
	const bool has_empty = line->has_empty;

	if (line->fd >= 0)
		close(line->fd);
	*line = (struct relay_line){ .fd = -1, .has_empty = has_empty };
}

static unsigned count_kept(const struct relay *relay)
{
	unsigned count = 0;

	for (unsigned n = 0; n < CONNECTIONS_OF_HOST; n++)
		count += relay->line[n].state == LINE_KEPT;
	return count;
}

/* ---- what has to hold ---- */

static bool has_said_anything(const struct relay_line *line)
{
	return line->said_gone || line->heard_gone || line->host_finished || line->guest_finished;
}

static void check_line(const struct relay *relay, const struct relay_line *line)
{
	const bool has_socket = line->state == LINE_GREETS || line->state == LINE_ASKS ||
				line->state == LINE_JOINED;

	assert(line->state <= LINE_OVER && (line->fd >= 0) == has_socket);
	assert(line->text_used <= RELAY_LINE_BYTES && !line->wants_connect);
	assert(line->held_bytes <= CONNECTION_BYTES - line->held_at);
	assert(!line->held_bytes || line->state == LINE_JOINED);
	if (line->state == LINE_FREE || line->state == LINE_GREETS)
		assert(!has_said_anything(line));
	if (line->state == LINE_GREETS || line->state == LINE_ASKS || line->state == LINE_KEPT)
		assert(number_of(relay, line) < CONNECTIONS_OF_HOST);
	assert(line->state != LINE_GREETS || line->has_empty);
	assert(line->state != LINE_JOINED || !line->host_finished || !line->guest_finished);
	assert(line->state != LINE_KEPT || (line->port == AGENT_PORT && !line->guest_finished));
	if (line->said_gone || line->heard_gone)
		assert(line->state == LINE_OVER && !(line->said_gone && line->heard_gone));
	assert(line->state != LINE_OVER || !line->has_empty || line->said_gone);
}

void check_relay(const struct relay *relay)
{
	assert(count_kept(relay) <= RELAY_KEPT_MOST);
	for (unsigned n = 0; n < CONNECTIONS; n++)
		check_line(relay, &relay->line[n]);
}

/* ---- who is kept ---- */

/* Its client has gone: true: for the next one. */
static bool line_keep(struct relay *relay, struct relay_line *line)
{
	if (line->port != AGENT_PORT || number_of(relay, line) >= CONNECTIONS_OF_HOST ||
	    line->held_bytes || line->guest_finished || count_kept(relay) == RELAY_KEPT_MOST ||
	    !conversation_is_over(&line->conversation))
		return false;
	close(line->fd);
	line->fd = -1;
	line->state = LINE_KEPT;
	return true;
}

static struct relay_line *find_kept(struct relay *relay)
{
	for (unsigned n = 0; n < CONNECTIONS_OF_HOST; n++)
		if (relay->line[n].state == LINE_KEPT)
			return &relay->line[n];
	return NULL;
}

/* ---- to the guest ---- */

static void put(struct relay *relay, struct relay_line *line, enum connection_kind kind,
		uint32_t bytes)
{
	const unsigned slot = number_of(relay, line);

	assert(line->has_empty && slot < CONNECTIONS); /* ipc/connection_slots.h: one each way */
	assert(bytes <= CONNECTION_BYTES);
	relay->options->memory->slot[slot].message =
		(struct connection_message){ .kind = kind, .port = line->port, .bytes = bytes };
	line->has_empty = false;
	slot_answer(&relay->slots, slot, 0);
}

static void put_data(struct relay *relay, struct relay_line *line)
{
	uint8_t *data = relay->options->memory->slot[number_of(relay, line)].data;
	const ssize_t got = recv(line->fd, data, CONNECTION_BYTES, MSG_DONTWAIT);

	if (got > 0) {
		conversation_asks(&line->conversation, data, (size_t)got);
		put(relay, line, CONNECTION_DATA, (uint32_t)got);
	} else if (!got && line_keep(relay, line)) {
		return;
	} else if (!got) {
		line->host_finished = true;
		put(relay, line, CONNECTION_FINISHED, 0);
	} else if (errno != EAGAIN && errno != EINTR) {
		line_close(relay, line);
	}
}

/* What can be said now. */
static void advance(struct relay *relay, struct relay_line *line)
{
	if (line->state == LINE_JOINED && line->host_finished && line->guest_finished)
		line_close(relay, line);
	if (line->has_empty && line->wants_connect) {
		line->wants_connect = false;
		put(relay, line, CONNECTION_CONNECT, 0);
	} else if (line->has_empty && line->state == LINE_OVER && !line->said_gone) {
		line->said_gone = true;
		put(relay, line, CONNECTION_GONE, 0);
	}
	if (line->state == LINE_OVER && line->said_gone && line->heard_gone)
		line_forget(line);
}

/* ---- from the guest ---- */

static void write_held(struct relay *relay, struct relay_line *line)
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

static int take_connect(struct relay *relay, struct relay_line *line, uint32_t port)
{
	const unsigned number = number_of(relay, line);
	int fd;

	if (number < CONNECTIONS_OF_HOST || line->state != LINE_FREE)
		return -EBADMSG;
	fd = connect_to(relay, port);
	if (fd >= 0) {
		line->fd = fd;
		line->port = port;
		line->state = LINE_JOINED;
	}
	slot_answer(&relay->slots, CONNECTIONS + number, fd < 0 ? fd : 0);
	return 0;
}

static void line_join(struct relay *relay, struct relay_line *line)
{
	char text[RELAY_LINE_BYTES];
	/* as others do, a number from 2^30 on */
	const int bytes = snprintf(text, sizeof(text), "OK %u\n",
				   (1u << 30) + number_of(relay, line));

	line->state = LINE_JOINED;
	line->conversation = (struct conversation){ .asked = 0 };
	if (send(line->fd, text, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != bytes)
		line_close(relay, line);
}

static int take_opened(struct relay *relay, struct relay_line *line)
{
	if (line->state != LINE_ASKS || line->wants_connect)
		return line->state == LINE_OVER ? 0 : -EBADMSG;
	line_join(relay, line);
	return 0;
}

/* Data that come while the host's side is gone are for nobody; who is kept is silent. */
static int take_data(struct relay *relay, struct relay_line *line, uint32_t bytes)
{
	const unsigned slot = CONNECTIONS + number_of(relay, line);

	if (!bytes || bytes > CONNECTION_BYTES || line->guest_finished ||
	    (line->state != LINE_JOINED && line->state != LINE_OVER && line->state != LINE_KEPT))
		return -EBADMSG;
	if (line->state == LINE_KEPT)
		line_close(relay, line);
	if (line->state == LINE_OVER) {
		slot_answer(&relay->slots, slot, 0);
		return 0;
	}
	conversation_answers(&line->conversation, relay->options->memory->slot[slot].data, bytes);
	line->held_at = 0;
	line->held_bytes = bytes;
	write_held(relay, line);
	return 0;
}

static int take_end(struct relay *relay, struct relay_line *line, bool is_gone)
{
	if (line->state == LINE_FREE || line->state == LINE_GREETS ||
	    (line->state == LINE_ASKS && !is_gone))
		return -EBADMSG;
	if (line->heard_gone)
		return -EBADMSG;
	line->guest_finished = true;
	line->heard_gone = is_gone;
	if (line->state == LINE_KEPT || (is_gone && line->state != LINE_OVER))
		line_close(relay, line);
	else if (line->state == LINE_JOINED)
		shutdown(line->fd, SHUT_WR);
	/* once it is answered the line may be asked for again: it has to be free by then */
	advance(relay, line);
	slot_answer(&relay->slots, CONNECTIONS + number_of(relay, line), 0);
	return 0;
}

static int take_message(struct relay *relay, unsigned slot)
{
	struct relay_line *line = &relay->line[slot - CONNECTIONS];
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

static struct relay_line *find_free(struct relay *relay)
{
	for (unsigned n = 0; n < CONNECTIONS_OF_HOST; n++)
		if (relay->line[n].state == LINE_FREE && relay->line[n].has_empty)
			return &relay->line[n];
	return NULL;
}

/* When there is no room left, what is kept makes some: that is nobody's loss. */
static void make_room(struct relay *relay)
{
	struct relay_line *kept = find_free(relay) ? NULL : find_kept(relay);

	if (!kept)
		return;
	line_close(relay, kept);
	advance(relay, kept);
}

static void take_client(struct relay *relay)
{
	struct relay_line *line = find_free(relay);
	int fd = line ? accept4(relay->options->listener_fd, NULL, NULL,
				SOCK_CLOEXEC | SOCK_NONBLOCK)
		      : -1;

	if (fd < 0)
		return;
	line->fd = fd;
	line->state = LINE_GREETS;
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

/* It has greeted. */
static void ask_for(struct relay *relay, struct relay_line *line)
{
	struct relay_line *kept = line->port == AGENT_PORT ? find_kept(relay) : NULL;

	if (!kept) {
		line->state = LINE_ASKS;
		line->wants_connect = true;
		return;
	}
	kept->fd = line->fd;
	line->fd = -1;
	line_forget(line);
	line_join(relay, kept);
	advance(relay, kept);
}

/* Byte by byte: what follows the line is the guest's. */
static void take_greeting(struct relay *relay, struct relay_line *line)
{
	char byte;
	ssize_t got;

	while ((got = recv(line->fd, &byte, 1, MSG_DONTWAIT)) == 1) {
		if (byte != '\n') {
			assert(line->text_used < RELAY_LINE_BYTES);
			line->text[line->text_used++] = byte;
			if (line->text_used < RELAY_LINE_BYTES)
				continue;
			line_forget(line);
			return;
		}
		line->text[line->text_used] = 0;
		if (parse_greeting(line->text, &line->port))
			ask_for(relay, line);
		else
			line_forget(line);
		return;
	}
	if (!got || (errno != EAGAIN && errno != EINTR))
		line_forget(line);
}

/* ---- the loop ---- */

static short events_of(const struct relay_line *line)
{
	short events = 0;

	if (line->state == LINE_GREETS ||
	    (line->state == LINE_JOINED && line->has_empty && !line->host_finished))
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

static void serve_line(struct relay *relay, struct relay_line *line, short events)
{
	if (events && line->held_bytes)
		write_held(relay, line);
	if (events && line->state == LINE_GREETS)
		take_greeting(relay, line);
	else if (events && line->state == LINE_JOINED && line->has_empty && !line->host_finished)
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
	make_room(relay);
	CHECK(check_relay(relay));
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
