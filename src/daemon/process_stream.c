/* See process_stream.h. */
#include "process_stream_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "lib/check.h"

enum { PIECE_BYTES = 16384, TERMINAL_BYTES = 64 };
/* What a pipe holds is read in as many; what is written meanwhile by others is not waited for. */
enum { LAST_PIECES = 64 };

void check_stream(const struct process_stream *stream)
{
	const size_t waits = stream->out_used - stream->out_at;

	assert(stream->out_at <= stream->out_used && stream->out_used <= stream->out_room);
	assert(stream->pending_at <= stream->pending_used);
	assert(stream->pending_used <= sizeof(stream->pending));
	assert(stream->in_used <= sizeof(stream->in));
	if (stream->socket.wanted & EPOLLIN)
		assert(!stream->closes && !stream->pending_used && waits < STREAM_BYTES);
	for (unsigned n = 0; n < OUTPUTS; n++)
		assert(!stream->outlet[n].watched.wanted || waits < STREAM_BYTES);
}

/* ---- what is waited for ---- */

/* Without anything wanted it is not in the loop: its end would come again and again. */
static void want(struct process_stream *stream, struct watched *watched, uint32_t events)
{
	if (watched->source.fd < 0 || (watched->is_there && watched->wanted == events))
		return;
	if (watched->is_there && !events)
		loop_remove(stream->plan.loop, &watched->source);
	else if (watched->is_there)
		loop_change(stream->plan.loop, &watched->source, events);
	else if (events)
		loop_add(stream->plan.loop, &watched->source, events);
	watched->is_there = events;
	watched->wanted = events;
}

static void watched_close(struct process_stream *stream, struct watched *watched)
{
	want(stream, watched, 0);
	if (watched->source.fd >= 0)
		close(watched->source.fd);
	watched->source.fd = -1;
}

static void want_all(struct process_stream *stream)
{
	size_t waits = stream->out_used - stream->out_at;
	bool reads = !stream->pending_used && waits < STREAM_BYTES;
	/* also of one of whom nothing is read is heard that he goes away */
	uint32_t heard = reads ? EPOLLRDHUP | EPOLLIN : EPOLLRDHUP;

	want(stream, &stream->socket, (stream->closes ? 0 : heard) | (waits ? EPOLLOUT : 0));
	want(stream, &stream->input, stream->pending_used ? EPOLLOUT : 0);
	for (unsigned n = 0; n < OUTPUTS; n++)
		want(stream, &stream->outlet[n].watched, waits < STREAM_BYTES ? EPOLLIN : 0);
}

static void stream_free(struct process_stream *stream)
{
	want(stream, &stream->socket, 0);
	watched_close(stream, &stream->process);
	watched_close(stream, &stream->input);
	for (unsigned n = 0; n < OUTPUTS; n++)
		watched_close(stream, &stream->outlet[n].watched);
	free(stream->out);
	free(stream);
}

/* The client has gone, or has been told the end. */
static void stream_end(struct process_stream *stream)
{
	const struct process_stream_plan plan = stream->plan;

	if (!stream->has_exited) {
		kill(-stream->pid, SIGHUP);
		kill(-stream->pid, SIGKILL);
		waitpid(stream->pid, NULL, 0);
	}
	stream_free(stream);
	plan.ended(plan.context);
}

/* ---- to the client ---- */

static bool add_out(struct process_stream *stream, const void *data, size_t bytes)
{
	if (stream->out_used + bytes > stream->out_room && stream->out_at) {
		stream->out_used -= stream->out_at;
		memmove(stream->out, stream->out + stream->out_at, stream->out_used);
		stream->out_at = 0;
	}
	if (stream->out_used + bytes > stream->out_room) {
		size_t room = (stream->out_used + bytes) * 2;
		uint8_t *grown = realloc(stream->out, room);

		if (!grown)
			return false;
		stream->out = grown;
		stream->out_room = room;
	}
	assert(bytes <= stream->out_room - stream->out_used);
	if (bytes)
		memcpy(stream->out + stream->out_used, data, bytes);
	stream->out_used += bytes;
	return true;
}

static void add_message(struct process_stream *stream, enum channel channel, const void *data,
			size_t bytes)
{
	uint8_t head[WEBSOCKET_HEAD_BYTES];
	uint8_t first = (uint8_t)channel;
	size_t head_bytes = websocket_make_head(head, WEBSOCKET_BINARY, bytes + 1);

	if (!add_out(stream, head, head_bytes) || !add_out(stream, &first, 1) ||
	    !add_out(stream, data, bytes))
		stream->closes = true;
}

static void add_control(struct process_stream *stream, enum websocket_code code, const void *data,
			size_t bytes)
{
	uint8_t head[WEBSOCKET_HEAD_BYTES];
	size_t head_bytes = websocket_make_head(head, code, bytes);

	add_out(stream, head, head_bytes);
	add_out(stream, data, bytes);
}

static void say_end(struct process_stream *stream)
{
	static const uint8_t normal[2] = { 1000 >> 8, 1000 & 255 };
	char text[32];
	int bytes = snprintf(text, sizeof(text), "{\"code\":%d}", stream->code);

	add_message(stream, CHANNEL_END, text, (size_t)bytes);
	add_control(stream, WEBSOCKET_CLOSE, normal, sizeof(normal));
	stream->closes = true;
}

/* False: the stream is no more. */
static bool write_out(struct process_stream *stream)
{
	size_t waits = stream->out_used - stream->out_at;
	ssize_t put = 0;

	if (waits)
		put = send(stream->socket.source.fd, stream->out + stream->out_at, waits,
			   MSG_NOSIGNAL);
	if (put > 0)
		stream->out_at += (size_t)put;
	if (put < 0 && errno != EAGAIN && errno != EINTR) {
		stream_end(stream);
		return false;
	}
	if (stream->closes && stream->out_at == stream->out_used) {
		stream_end(stream);
		return false;
	}
	return true;
}

/*
 * After whatever may have made something to write, or closed the stream: without it one that closes
 * with nothing to write would wait for ever. The stream may be no more then.
 */
static void settle(struct process_stream *stream)
{
	if (!write_out(stream))
		return;
	want_all(stream);
	CHECK(check_stream(stream));
}

/* ---- of the process ---- */

static bool take_output(struct outlet *outlet)
{
	struct process_stream *stream = outlet->stream;
	char data[PIECE_BYTES];
	ssize_t got = outlet->watched.source.fd < 0
			      ? -1
			      : read(outlet->watched.source.fd, data, sizeof(data));

	if (got > 0)
		add_message(stream, outlet->channel, data, (size_t)got);
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		watched_close(stream, &outlet->watched); /* a terminal without users says EIO */
	return got > 0;
}

static void outlet_ready(void *context, uint32_t events)
{
	struct outlet *outlet = context;

	(void)events;
	take_output(outlet);
	settle(outlet->stream);
}

static void process_ready(void *context, uint32_t events)
{
	struct process_stream *stream = context;
	int status;

	(void)events;
	if (waitpid(stream->pid, &status, WNOHANG) != stream->pid)
		return;
	stream->has_exited = true;
	stream->code = child_exit_code(status);
	watched_close(stream, &stream->process);
	for (unsigned n = 0; n < OUTPUTS; n++)
		for (unsigned piece = 0; piece < LAST_PIECES; piece++)
			if (!take_output(&stream->outlet[n]))
				break;
	say_end(stream);
	settle(stream);
}

/* Of a process that takes no more input it is thrown away. */
static void put_input(struct process_stream *stream)
{
	bool is_open = stream->input.source.fd >= 0;
	ssize_t put = 0;

	if (is_open && stream->pending_used)
		put = write(stream->input.source.fd, stream->pending + stream->pending_at,
			    stream->pending_used - stream->pending_at);
	if (put > 0)
		stream->pending_at += (size_t)put;
	if (!is_open || stream->pending_at == stream->pending_used ||
	    (put < 0 && errno != EAGAIN && errno != EINTR))
		stream->pending_at = stream->pending_used = 0;
	if (stream->input_ends && !stream->pending_used)
		watched_close(stream, &stream->input);
}

/* ---- from the client ---- */

static void set_size(int terminal, unsigned rows, unsigned columns)
{
	const struct winsize size = { .ws_row = (unsigned short)rows,
				      .ws_col = (unsigned short)columns };

	if (rows && columns && rows <= 1000 && columns <= 1000)
		ioctl(terminal, TIOCSWINSZ, &size);
}

static void take_size(struct process_stream *stream, const uint8_t *data, size_t bytes)
{
	json_t *size = json_loadb((const char *)data, bytes, JSON_REJECT_DUPLICATES, NULL);

	if (stream->plan.has_terminal)
		set_size(stream->outlet[OUTPUT].watched.source.fd,
			 (unsigned)json_integer_value(json_object_get(size, "rows")),
			 (unsigned)json_integer_value(json_object_get(size, "columns")));
	json_decref(size);
}

static void take_data(struct process_stream *stream, const struct websocket_head *head,
		      const uint8_t *data)
{
	size_t bytes = head->bytes;

	if (head->code != WEBSOCKET_MORE) {
		if (!bytes)
			return;
		stream->channel = data[0];
		data++;
		bytes--;
		if (stream->channel == CHANNEL_INPUT && !bytes && head->is_last)
			stream->input_ends = !stream->plan.has_terminal;
	}
	if (stream->channel == CHANNEL_SIZE) {
		take_size(stream, data, bytes);
	} else if (stream->channel == CHANNEL_INPUT) {
		assert(!stream->pending_used && bytes <= sizeof(stream->pending));
		memcpy(stream->pending, data, bytes); /* nothing is read while there is some */
		stream->pending_at = 0;
		stream->pending_used = bytes;
	} else {
		stream->closes = true;
	}
	put_input(stream);
}

static void take_frame(struct process_stream *stream, const struct websocket_head *head,
		       uint8_t *data)
{
	websocket_unmask(head, data);
	switch (head->code) {
	case WEBSOCKET_PING: add_control(stream, WEBSOCKET_PONG, data, head->bytes); break;
	case WEBSOCKET_PONG: break;
	case WEBSOCKET_CLOSE:
		add_control(stream, WEBSOCKET_CLOSE, data, head->bytes < 2 ? 0 : 2);
		stream->closes = true;
		break;
	default: take_data(stream, head, data);
	}
}

static void take_frames(struct process_stream *stream)
{
	struct websocket_head head;

	while (!stream->closes && !stream->pending_used) {
		int bytes = websocket_parse(stream->in, stream->in_used, &head);
		size_t whole = bytes > 0 ? (size_t)bytes + head.bytes : 0;

		if (bytes < 0)
			stream->closes = true;
		if (bytes <= 0 || whole > stream->in_used)
			return;
		take_frame(stream, &head, stream->in + bytes);
		stream->in_used -= whole;
		memmove(stream->in, stream->in + whole, stream->in_used);
	}
}

static void input_ready(void *context, uint32_t events)
{
	struct process_stream *stream = context;

	(void)events;
	put_input(stream);
	take_frames(stream);
	settle(stream);
}

/* False: the client is gone. */
static bool read_in(struct process_stream *stream)
{
	ssize_t got = recv(stream->socket.source.fd, stream->in + stream->in_used,
			   sizeof(stream->in) - stream->in_used, 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (got <= 0)
		return false;
	stream->in_used += (size_t)got;
	take_frames(stream);
	return true;
}

static void socket_ready(void *context, uint32_t events)
{
	struct process_stream *stream = context;

	if (events & (EPOLLHUP | EPOLLERR) || (events & EPOLLRDHUP && !stream->closes)) {
		stream_end(stream);
		return;
	}
	if (events & EPOLLIN && !stream->closes && !stream->pending_used && !read_in(stream)) {
		stream_end(stream);
		return;
	}
	settle(stream);
}

/* ---- its start ---- */

struct ends { int child[3], own[3]; };

static void ends_close(struct ends *ends)
{
	for (unsigned n = 0; n < 3; n++) {
		if (ends->child[n] >= 0)
			close(ends->child[n]);
		if (ends->own[n] >= 0)
			close(ends->own[n]);
	}
}

static int open_pipes(struct ends *ends)
{
	for (unsigned n = 0; n < 3; n++) {
		int both[2];

		if (pipe2(both, O_CLOEXEC))
			return -errno;
		ends->child[n] = both[n ? 1 : 0];
		ends->own[n] = both[n ? 0 : 1];
		fcntl(ends->own[n], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* One descriptor to write to and one to read from; the child opens it itself, by its name. */
static int open_terminal(struct ends *ends, char name[TERMINAL_BYTES])
{
	ends->own[1] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (ends->own[1] < 0 || grantpt(ends->own[1]) || unlockpt(ends->own[1]) ||
	    ptsname_r(ends->own[1], name, TERMINAL_BYTES))
		return -errno;
	ends->own[0] = fcntl(ends->own[1], F_DUPFD_CLOEXEC, 0);
	/* somebody has it until the child does: it would be at its end before */
	ends->child[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return ends->own[0] < 0 || ends->child[0] < 0 ? -errno : 0;
}

static int spawn(const struct process_stream_plan *plan, const struct ends *ends,
		 const char *terminal, pid_t *ret)
{
	const struct child_plan child = { .program = plan->program,
					  .arguments = plan->arguments,
					  .is_session = true,
					  .terminal = plan->has_terminal ? terminal : NULL,
					  .fd = { ends->child[0], ends->child[1],
						  ends->child[2] } };

	return child_spawn(&child, ret);
}

static void watch(struct watched *watched, int *fd, void (*ready)(void *, uint32_t), void *context)
{
	watched->source = (struct loop_source){ *fd, ready, context };
	*fd = -1;
}

static void watch_all(struct process_stream *stream, struct ends *ends, int process)
{
	int socket = stream->plan.socket;

	watch(&stream->socket, &socket, socket_ready, stream);
	watch(&stream->process, &process, process_ready, stream);
	watch(&stream->input, &ends->own[0], input_ready, stream);
	for (unsigned n = 0; n < OUTPUTS; n++) {
		struct outlet *outlet = &stream->outlet[n];

		outlet->stream = stream;
		outlet->channel = n == OUTPUT ? CHANNEL_OUTPUT : CHANNEL_ERRORS;
		watch(&outlet->watched, &ends->own[1 + n], outlet_ready, outlet);
	}
	want(stream, &stream->process, EPOLLIN);
}

static int start(struct process_stream *stream, struct ends *ends)
{
	const struct process_stream_plan *plan = &stream->plan;
	char terminal[TERMINAL_BYTES] = "";
	int error = plan->has_terminal ? open_terminal(ends, terminal) : open_pipes(ends);
	int process;

	if (!error && plan->has_terminal) /* before anybody asks for it */
		set_size(ends->own[1], plan->rows, plan->columns);
	if (!error)
		error = spawn(plan, ends, terminal, &stream->pid);
	if (error)
		return error;
	process = pidfd_open(stream->pid, 0);
	if (process < 0) {
		kill(stream->pid, SIGKILL);
		waitpid(stream->pid, NULL, 0);
		return -EMFILE;
	}
	watch_all(stream, ends, process);
	return 0;
}

int process_stream_start(const struct process_stream_plan *plan)
{
	struct process_stream *stream = calloc(1, sizeof(*stream));
	struct ends ends = { { -1, -1, -1 }, { -1, -1, -1 } };
	int error;

	if (!stream || plan->begin_bytes > sizeof(stream->in)) {
		free(stream);
		return -ENOMEM;
	}
	stream->plan = *plan;
	error = start(stream, &ends);
	ends_close(&ends);
	if (error) {
		free(stream);
		return error;
	}
	memcpy(stream->in, plan->begin, plan->begin_bytes);
	stream->in_used = plan->begin_bytes;
	take_frames(stream);
	settle(stream);
	return 0;
}
