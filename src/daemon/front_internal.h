/* What the front's files share: one request. */
#pragma once

#include <microhttpd.h>

#include "front.h"

struct request {
	struct front *front;
	struct MHD_Connection *connection;
	char *path;
	char method[8];
	struct api_call *call; /* NULL: it was not read whole */
	char *body;
	size_t body_used;
	bool is_suspended, is_too_large;
	char key[REPLAY_KEY_BYTES + 2]; /* of idempotency; "": none */
	struct event_stream *events;
	struct request *next;
};

void request_suspend(struct request *request);
void request_resume(struct request *request);
/* An answer of the call's, queued. */
enum MHD_Result request_reply(struct request *request);
/* NULL, or why it is not heard: a call that has failed. */
struct api_call *request_refusal(struct request *request);
struct api_call *request_call(struct request *request);

/* event_stream.c: the answer of API_EVENTS. */
enum MHD_Result event_stream_begin(struct request *request);
void event_stream_end(struct event_stream *stream);
/* Has it say that it lives. */
void event_stream_beat(struct event_stream *stream);

/* socket_upgrade.c: the answer of API_SOCKET. */
enum MHD_Result socket_upgrade(struct request *request);
