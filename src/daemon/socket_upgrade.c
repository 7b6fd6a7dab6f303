/* From a request for a WebSocket to the process behind it (process_stream.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "failure.h"
#include "front_internal.h"
#include "process_stream.h"
#include "websocket.h"

/* From the upgrade to the end of the socket; the request may be gone before. */
struct upgrade {
	struct front *front;
	struct api_call *call;
	struct MHD_UpgradeResponseHandle *handle;
	int fd; /* -1: it is none yet */
	bool is_over; /* before it was one */
	struct upgrade *next; /* of the front's */
};

enum { CLOSING_TURNS = 200 };
/* What a browser offers beside its session, and needs to be given back. */
static const char protocol[] = "umbra.stream";

static const char *header(const struct request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

static bool has_word(const char *words, const char *word)
{
	size_t bytes = strlen(word);

	while (words && *words) {
		words += strspn(words, ", \t");
		if (!strncasecmp(words, word, bytes) && strchr(", \t", words[bytes]))
			return true;
		words += strcspn(words, ",");
	}
	return false;
}

static void unlist(struct upgrade *upgrade)
{
	struct upgrade **at = &upgrade->front->upgrades;

	while (*at != upgrade)
		at = &(*at)->next;
	*at = upgrade->next;
	upgrade->front->streams--;
}

static void socket_ended(void *context)
{
	struct upgrade *upgrade = context;

	unlist(upgrade);
	MHD_upgrade_action(upgrade->handle, MHD_UPGRADE_ACTION_CLOSE);
	upgrade->front->is_due = true;
	upgrade->front->closing = upgrade->front->token ? CLOSING_TURNS : 0;
	call_release(upgrade->call);
	free(upgrade);
}

static int start(struct upgrade *upgrade, int fd, const void *begin, size_t bytes)
{
	struct api_call *call = upgrade->call;
	char **words = api_words(call->daemon->program, call->operation, call->arguments);
	const struct process_stream_plan plan = {
		.loop = &call->daemon->loop,
		.socket = fd,
		.begin = begin,
		.begin_bytes = bytes,
		.program = call->daemon->program,
		.arguments = words,
		.has_terminal = call_flag(call, "terminal"),
		.rows = (unsigned)call_number(call, "rows", 0),
		.columns = (unsigned)call_number(call, "columns", 0),
		.ended = socket_ended,
		.context = upgrade,
	};
	int error = words ? process_stream_start(&plan) : -ENOMEM;

	api_free_words(words);
	return error;
}

static void upgraded(void *context, struct MHD_Connection *connection, void *state,
		     const char *begin, size_t bytes, MHD_socket fd,
		     struct MHD_UpgradeResponseHandle *handle)
{
	struct upgrade *upgrade = context;
	struct request *request = state;

	(void)connection;
	if (request)
		request->upgrade = NULL;
	upgrade->handle = handle;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	upgrade->fd = fd;
	if (upgrade->is_over || start(upgrade, fd, begin, bytes))
		socket_ended(upgrade);
}

void socket_upgrade_end_all(struct front *front)
{
	for (struct upgrade *upgrade = front->upgrades; upgrade; upgrade = upgrade->next) {
		upgrade->is_over = true;
		if (upgrade->fd >= 0) /* its process hears of it, and ends */
			shutdown(upgrade->fd, SHUT_RDWR);
	}
}

void socket_upgrade_drop(struct upgrade *upgrade)
{
	unlist(upgrade);
	call_release(upgrade->call);
	free(upgrade);
}

/* NULL, or what it lacks. */
static const char *not_a_websocket(const struct request *request, char accept[])
{
	const char *version = header(request, "Sec-WebSocket-Version");
	const char *key = header(request, "Sec-WebSocket-Key");

	if (!has_word(header(request, "Upgrade"), "websocket") ||
	    !has_word(header(request, "Connection"), "upgrade"))
		return "it is a WebSocket, and asked for as something else";
	if (!version || strcmp(version, "13"))
		return "another version of WebSockets than 13";
	return key && websocket_accept(key, accept) ? NULL : "no key of a WebSocket";
}

static enum MHD_Result queue(struct request *request, const char *accept)
{
	struct upgrade *upgrade = calloc(1, sizeof(*upgrade));
	struct MHD_Response *response =
		upgrade ? MHD_create_response_for_upgrade(upgraded, upgrade) : NULL;
	enum MHD_Result queued;

	if (!response) {
		free(upgrade);
		return MHD_NO;
	}
	upgrade->front = request->front;
	upgrade->fd = -1;
	upgrade->next = request->front->upgrades;
	request->front->upgrades = upgrade;
	upgrade->call = request->call;
	call_hold(upgrade->call);
	request->upgrade = upgrade;
	request->front->streams++;
	request->front->daemon->calls++;
	MHD_add_response_header(response, "Upgrade", "websocket");
	MHD_add_response_header(response, "Sec-WebSocket-Accept", accept);
	if (has_word(header(request, "Sec-WebSocket-Protocol"), protocol))
		MHD_add_response_header(response, "Sec-WebSocket-Protocol", protocol);
	queued = MHD_queue_response(request->connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
	MHD_destroy_response(response);
	return queued;
}

enum MHD_Result socket_upgrade(struct request *request)
{
	char accept[WEBSOCKET_ACCEPT_BYTES];
	const char *wrong = not_a_websocket(request, accept);

	if (wrong) {
		call_fail(request->call, 426, FAILURE_USAGE, wrong, "see umbra-api(7)");
	} else if (call_running_machine(request->call)) {
		if (request->front->streams < FRONT_STREAMS)
			return queue(request, accept);
		call_fail(request->call, 429, FAILURE_UNUSABLE, "too many streams are open",
			  "close one");
	}
	return request_reply(request);
}
