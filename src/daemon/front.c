/* See front.h. */
#include "front_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

enum { CONNECTION_BYTES = 16384, BEAT_MS = 15000, SWALLOWED_BYTES = 64 << 20 };
enum { CLOSING_MS = 10 };

/* ---- those who wait ---- */

void request_suspend(struct request *request)
{
	request->is_suspended = true;
	MHD_suspend_connection(request->connection);
}

void request_resume(struct request *request)
{
	if (!request->is_suspended)
		return;
	request->is_suspended = false;
	MHD_resume_connection(request->connection);
	request->front->is_due = true;
}

static void call_answered(void *context) { request_resume(context); }

/* ---- answers ---- */

static enum MHD_Result queue_text(struct request *request, unsigned status, char *text,
				  const char *type)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	const char *id = json_string_value(json_object_get(request->call->answer, "id"));
	char place[sizeof("/v1/operations/") + OPERATION_ID_BYTES];
	enum MHD_Result queued;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	page_headers(response, type);
	if (status == 202 && id) {
		snprintf(place, sizeof(place), "/v1/operations/%s", id);
		MHD_add_response_header(response, "Location", place);
	}
	queued = MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
	return queued;
}

enum MHD_Result request_reply(struct request *request)
{
	struct api_call *call = request->call;
	struct daemon *daemon = request->front->daemon;
	char *text;

	daemon->calls++;
	daemon->failures += call->status >= 400;
	if (call->text) {
		text = call->text;
		call->text = NULL;
		return queue_text(request, call->status, text,
				  call->operation->kind == API_PLAIN
					  ? "text/plain; version=0.0.4; charset=utf-8"
					  : "application/json");
	}
	text = json_dumps(call->answer, JSON_COMPACT | JSON_ENCODE_ANY);
	return text ? queue_text(request, call->status, text, "application/json") : MHD_NO;
}

/* ---- a request ---- */

static void drop_body(struct request *request)
{
	request->front->bodies_bytes -= request->kept_bytes;
	request->kept_bytes = 0;
	free(request->body);
	request->body = NULL;
}

/* Whether it is to be kept, as what came before of it was. */
static bool has_room(struct request *request, size_t bytes)
{
	if (request->call || request->is_too_large || request->is_one_too_many)
		return false;
	if (bytes > FRONT_BODY_BYTES - request->body_used)
		request->is_too_large = true;
	else if (bytes > FRONT_BODIES_BYTES - request->front->bodies_bytes)
		request->is_one_too_many = true;
	return !request->is_too_large && !request->is_one_too_many;
}

/* What is refused is swallowed: its sender would not hear why while he sends. */
static bool keep_body(struct request *request, const char *data, size_t bytes)
{
	char *grown;

	if (!has_room(request, bytes)) {
		drop_body(request);
		request->body_used += bytes;
		return request->body_used < SWALLOWED_BYTES;
	}
	grown = realloc(request->body, request->body_used + bytes);
	if (!grown)
		return false;
	request->body = grown;
	memcpy(grown + request->body_used, data, bytes);
	request->body_used += bytes;
	request->kept_bytes += bytes;
	request->front->bodies_bytes += bytes;
	return true;
}

static struct request *request_new(struct front *front, struct MHD_Connection *connection,
				   const char *method, const char *path)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	request->path = strdup(path);
	snprintf(request->method, sizeof(request->method), "%s", method);
	request->front = front;
	request->connection = connection;
	request->next = front->requests;
	front->requests = request;
	return request;
}

/* It may have been answered at once, when it is what its key was answered before. */
static void run_call(struct request *request)
{
	struct api_call *call = request->call;
	struct replay *replay = &request->front->daemon->replay;

	if (call->status)
		return;
	if (request->key[0]) {
		call->key = strdup(request->key);
		if (!call->key) {
			call_fail_errno(call, -ENOMEM, "ask again");
			return;
		}
		if (replay_begin(replay, call) != REPLAY_NEW)
			return;
	}
	call_run(call);
}

/*
 * When its head has come. Another user is answered at once, which ends his connection; others hear
 * it when they have sent what they send.
 */
static enum MHD_Result begin_request(struct request *request)
{
	if (!request->path)
		return MHD_NO;
	request->file = page_of(request);
	request->call = request_refusal(request);
	if (request->call && front_is_owners(request->front) && !request_is_of_owner(request))
		return request_reply(request);
	return MHD_YES;
}

static enum MHD_Result begin_answer(struct request *request)
{
	struct api_call *call = request_body_refusal(request);

	if (!call) /* sessions may have ended since its head came */
		call = request_refusal(request);
	if (!call && request->file)
		return page_reply(request, request->file);
	request->call = call ? call : request_call(request);
	call = request->call;
	drop_body(request);
	if (!call)
		return MHD_NO;
	if (!call->status && call->operation->kind == API_EVENTS)
		return event_stream_begin(request);
	if (!call->status && call->operation->kind == API_SOCKET)
		return socket_upgrade(request);
	run_call(request);
	if (call->status)
		return request_reply(request);
	call->answered = call_answered;
	call->context = request;
	request_suspend(request);
	return MHD_YES;
}

static enum MHD_Result take_request(void *context, struct MHD_Connection *connection,
				    const char *url, const char *method, const char *version,
				    const char *data, size_t *bytes, void **state)
{
	struct request *request = *state;

	(void)version;
	if (!request) {
		request = request_new(context, connection, method, url);
		*state = request;
		return request ? begin_request(request) : MHD_NO;
	}
	if (*bytes) {
		bool goes_on = keep_body(request, data, *bytes);

		*bytes = 0;
		return goes_on ? MHD_YES : MHD_NO;
	}
	if (!request->call)
		return begin_answer(request);
	return request->call && request->call->status ? request_reply(request) : MHD_NO;
}

static void end_request(void *context, struct MHD_Connection *connection, void **state,
			enum MHD_RequestTerminationCode why)
{
	struct front *front = context;
	struct request *request = *state;
	struct request **at = &front->requests;

	(void)connection;
	(void)why;
	if (!request)
		return;
	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	if (request->events)
		event_stream_end(request->events);
	if (request->upgrade)
		socket_upgrade_drop(request->upgrade);
	if (request->call) {
		request->call->is_gone = true;
		call_release(request->call);
	}
	drop_body(request);
	free(request->path);
	free(request);
	*state = NULL;
}

/*
 * A zero byte would end a text unseen, and make another of it: it becomes a byte that no UTF-8 has,
 * so that what is asked is refused.
 */
static size_t unescape(void *context, struct MHD_Connection *connection, char *text)
{
	size_t bytes = MHD_http_unescape(text);
	char *zero;

	(void)context;
	(void)connection;
	while ((zero = memchr(text, 0, bytes)))
		*zero = (char)0xff;
	return bytes;
}

/* ---- the whole ---- */

static void front_ready(void *context, uint32_t events)
{
	struct front *front = context;

	(void)events;
	front->is_due = true;
}

static void front_beat(void *context)
{
	struct front *front = context;

	for (struct request *request = front->requests; request; request = request->next)
		if (request->events)
			event_stream_beat(request->events);
	loop_set(&front->daemon->loop, &front->beat, BEAT_MS);
}

static struct MHD_Daemon *start_http(struct front *front, int listener,
				     const struct front_door *door)
{
	const struct front_door *tls = door && door->certificate ? door : NULL;
	const unsigned connections =
		front->sessions ? FRONT_PAGE_CONNECTIONS : FRONT_CONNECTIONS;
	struct MHD_OptionItem secret[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, tls ? (void *)(uintptr_t)tls->certificate : NULL },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, tls ? (void *)(uintptr_t)tls->key : NULL },
		{ MHD_OPTION_END, 0, NULL },
	};
	const unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE;

	return MHD_start_daemon(flags | (tls ? MHD_USE_TLS : 0), 0, NULL, NULL, take_request, front,
				MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listener,
				MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
				MHD_OPTION_NOTIFY_COMPLETED, end_request, front,
				MHD_OPTION_CONNECTION_LIMIT, connections,
				MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)FRONT_IDLE_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				MHD_OPTION_ARRAY, tls ? secret : secret + 2, MHD_OPTION_END);
}

int front_open(struct front *front, struct daemon *daemon, int listener,
	       const struct front_door *door)
{
	const union MHD_DaemonInfo *info;
	int error;

	*front = (struct front){ .daemon = daemon,
				 .token = door ? door->token : NULL,
				 .sessions = door ? door->sessions : NULL };
	front->http = start_http(front, listener, door);
	if (!front->http)
		return -EINVAL;
	info = MHD_get_daemon_info(front->http, MHD_DAEMON_INFO_EPOLL_FD);
	front->source = (struct loop_source){ info->listen_fd, front_ready, front };
	front->beat = (struct loop_timer){ .due = front_beat, .context = front };
	error = loop_add(&daemon->loop, &front->source, EPOLLIN);
	if (error) {
		MHD_quiesce_daemon(front->http); /* it would close the listener */
		MHD_stop_daemon(front->http);
		front->http = NULL;
		return error;
	}
	loop_set(&daemon->loop, &front->beat, BEAT_MS);
	return 0;
}

void front_end_streams(struct front *front)
{
	for (struct request *request = front->requests; request; request = request->next)
		if (request->events) {
			request->is_over = true;
			request_resume(request);
		}
	socket_upgrade_end_all(front);
	front->is_due = true;
}

void front_close(struct front *front)
{
	front->http_ends = true;
	loop_unset(&front->daemon->loop, &front->beat);
	loop_remove(&front->daemon->loop, &front->source);
	for (struct request *request = front->requests; request; request = request->next)
		request_resume(request);
	MHD_stop_daemon(front->http);
}

/*
 * It closes a WebSocket that goes by TLS in several runs, once its bytes are gone, and does not say
 * that it needs another one.
 */
static int64_t closing_wait(struct front *front, int64_t wait_ms)
{
	if (!front->closing)
		return wait_ms;
	front->closing--;
	return wait_ms < 0 || wait_ms > CLOSING_MS ? CLOSING_MS : wait_ms;
}

int64_t front_turn(struct front *front)
{
	MHD_UNSIGNED_LONG_LONG wait_ms;
	bool is_waited;

	front->is_due = false;
	MHD_run(front->http);
	if (front->is_due)
		return 0;
	is_waited = MHD_get_timeout(front->http, &wait_ms) == MHD_YES;
	return closing_wait(front, is_waited ? (int64_t)wait_ms : -1);
}
