/*
 * Events as server-sent events: a reader has a number, up to which it was told, and asks the
 * journal for more whenever it can take more. One that is slow costs nothing but its connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "front_internal.h"

enum { BATCH = 64, PIECE_BYTES = 8192 };

struct event_stream {
	struct request *request;
	struct events_reader reader;
	uint64_t told;
	const char *subject; /* NULL: of all */
	char *text; /* what goes out; used of it is text */
	size_t at, used, room;
	bool has_all; /* the journal had no more */
};

static bool add_text(struct event_stream *stream, const char *text, size_t bytes)
{
	if (stream->used + bytes > stream->room) {
		size_t room = (stream->used + bytes) * 2;
		char *grown = realloc(stream->text, room);

		if (!grown)
			return false;
		stream->text = grown;
		stream->room = room;
	}
	memcpy(stream->text + stream->used, text, bytes);
	stream->used += bytes;
	return true;
}

static bool is_wanted(const struct event_stream *stream, const json_t *event)
{
	const char *subject = json_string_value(json_object_get(event, "subject"));

	return !stream->subject || (subject && !strcmp(subject, stream->subject));
}

static bool take_event(void *context, uint64_t sequence, const char *text)
{
	struct event_stream *stream = context;
	json_t *event = json_loads(text, 0, NULL);
	const char *kind = json_string_value(json_object_get(event, "kind")) ?: "unknown";
	char *line = NULL;
	int bytes = 0;
	bool goes_on = true;

	if (is_wanted(stream, event))
		bytes = asprintf(&line, "id: %lu\nevent: %s\ndata: %s\n\n", sequence, kind, text);
	if (bytes > 0)
		goes_on = add_text(stream, line, (size_t)bytes);
	if (bytes >= 0)
		free(line);
	json_decref(event);
	stream->has_all = false;
	if (goes_on)
		stream->told = sequence;
	return goes_on;
}

/* From the journal, unless something is left. */
static void fill(struct event_stream *stream)
{
	struct events *events = &stream->request->front->daemon->events;

	if (stream->at < stream->used)
		return;
	stream->at = stream->used = 0;
	do {
		stream->has_all = true;
		if (store_since(events->store, stream->told, BATCH, take_event, stream))
			stream->has_all = true;
	} while (!stream->used && !stream->has_all);
}

static ssize_t read_stream(void *context, uint64_t position, char *data, size_t most)
{
	struct event_stream *stream = context;
	size_t bytes;

	(void)position;
	if (stream->request->front->http_ends || stream->request->is_over)
		return MHD_CONTENT_READER_END_OF_STREAM;
	fill(stream);
	bytes = stream->used - stream->at;
	if (!bytes) {
		request_suspend(stream->request);
		return 0;
	}
	bytes = bytes < most ? bytes : most;
	memcpy(data, stream->text + stream->at, bytes);
	stream->at += bytes;
	return (ssize_t)bytes;
}

static void on_news(void *context)
{
	struct event_stream *stream = context;

	request_resume(stream->request);
}

void event_stream_beat(struct event_stream *stream)
{
	static const char beat[] = ": \n\n";

	if (stream->at == stream->used) {
		stream->at = stream->used = 0;
		add_text(stream, beat, strlen(beat));
	}
	request_resume(stream->request);
}

void event_stream_end(struct event_stream *stream)
{
	events_remove_reader(&stream->request->front->daemon->events, &stream->reader);
	stream->request->front->streams--;
	free(stream->text);
	free(stream);
}

/*
 * After the number that the header or the query says; without one, after the last that there is.
 * A number that no event had yet is of another journal (the store was made anew): all of this one
 * is news then.
 */
static void set_begin(struct event_stream *stream, struct request *request)
{
	const char *last = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND,
						       "Last-Event-ID");
	const uint64_t newest = request->front->daemon->events.last;
	int64_t after = call_number(request->call, "after", -1);

	if (last)
		stream->told = strtoull(last, NULL, 10);
	else if (after >= 0)
		stream->told = (uint64_t)after;
	else
		stream->told = newest;
	if (stream->told > newest)
		stream->told = 0;
}

static enum MHD_Result queue_stream(struct request *request, struct event_stream *stream)
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, PIECE_BYTES, read_stream, stream, NULL);
	enum MHD_Result queued;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", "text/event-stream");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	queued = MHD_queue_response(request->connection, 200, response);
	MHD_destroy_response(response);
	return queued;
}

enum MHD_Result event_stream_begin(struct request *request)
{
	struct front *front = request->front;
	struct event_stream *stream =
		front->streams < FRONT_STREAMS ? calloc(1, sizeof(*stream)) : NULL;

	if (!stream) {
		call_fail(request->call, 429, FAILURE_UNUSABLE, "too many streams are open",
			  "close one");
		return request_reply(request);
	}
	front->streams++;
	front->daemon->calls++;
	request->events = stream;
	stream->request = request;
	stream->subject = call_text(request->call, "subject");
	stream->reader = (struct events_reader){ .news = on_news, .context = stream };
	set_begin(stream, request);
	/* at once: who connects knows that it is heard */
	add_text(stream, ": \n\n", strlen(": \n\n"));
	events_add_reader(&front->daemon->events, &stream->reader);
	return queue_stream(request, stream);
}
