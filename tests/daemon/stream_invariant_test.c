/* The invariants of a stream, each broken: check_stream() sees it. */
#include <stdlib.h>
#include <sys/epoll.h>

#include "../lib/caught.h"
#include "daemon/process_stream_internal.h"

static struct process_stream *stream_in(void *stream) { return stream; }
static void check_stream_of(void *stream) { check_stream(stream); }
static void sent_more_than_there_is(void *stream)
{
	stream_in(stream)->out_at = stream_in(stream)->out_used + 1;
}
static void more_than_there_is_room(void *stream)
{
	stream_in(stream)->out_used = stream_in(stream)->out_room + 1;
}
static void client_is_not_waited_for(void *stream) { stream_in(stream)->out_used = STREAM_BYTES; }
static void process_is_not_waited_for(void *stream) { stream_in(stream)->pending_used = 1; }
static void pending_beyond_its_end(void *stream) { stream_in(stream)->pending_at = 1; }
static void more_pending_than_a_frame(void *stream)
{
	stream_in(stream)->socket.wanted = 0;
	stream_in(stream)->pending_used = WEBSOCKET_FRAME_BYTES + 1;
}
static void more_than_is_taken(void *stream) { stream_in(stream)->in_used = IN_BYTES + 1; }
static void reads_though_it_closes(void *stream) { stream_in(stream)->closes = true; }

static const struct spoiling of_stream[] = {
	{ "more sent than there was", sent_more_than_there_is },
	{ "more to send than there is room", more_than_there_is_room },
	{ "a client that is not waited for", client_is_not_waited_for },
	{ "a process that is not waited for", process_is_not_waited_for },
	{ "input beyond its end", pending_beyond_its_end },
	{ "more input than a frame has", more_pending_than_a_frame },
	{ "more of the client than is taken", more_than_is_taken },
	{ "one that reads though it closes", reads_though_it_closes },
};

int main(void)
{
	struct process_stream *stream = calloc(1, sizeof(*stream));
	unsigned missed;

	stream->out_room = 2 * STREAM_BYTES;
	stream->socket.wanted = EPOLLIN;
	stream->outlet[0].watched.wanted = EPOLLIN;
	missed = CAUGHT_MISSED("stream", check_stream_of, stream, of_stream);
	free(stream);
	return missed != 0;
}
