/* What the front's files share: one request. */
#pragma once

#include <microhttpd.h>

#include "front.h"

struct page_file;

struct request {
	struct front *front;
	struct MHD_Connection *connection;
	char *path;
	char method[8];
	struct api_call *call; /* NULL: it was not read whole, and may be heard */
	char *body;
	size_t body_used;
	size_t kept_bytes; /* of it in the front's bodies_bytes */
	const struct page_file *file; /* that it asks for; NULL: the API */
	bool is_over; /* its stream ends: who was let in is not any more */
	bool is_suspended, is_too_large, is_one_too_many;
	char key[REPLAY_KEY_BYTES + 2]; /* of idempotency; "": none */
	struct event_stream *events;
	struct upgrade *upgrade; /* until the socket is a stream's */
	struct request *next;
};

void request_suspend(struct request *request);
void request_resume(struct request *request);
/* An answer of the call's, queued. */
enum MHD_Result request_reply(struct request *request);
/* By its head, and again when it is whole; NULL, or why it is not heard: a call that has failed. */
struct api_call *request_refusal(struct request *request);
/* By its body. */
struct api_call *request_body_refusal(struct request *request);
/* Nobody else can connect to where the front listens, but the kernel has to say so. */
bool front_is_owners(const struct front *front);
bool request_is_of_owner(const struct request *request);
struct api_call *request_call(struct request *request);

/* event_stream.c: the answer of API_EVENTS. */
enum MHD_Result event_stream_begin(struct request *request);
void event_stream_end(struct event_stream *stream);
/* Has it say that it lives. */
void event_stream_beat(struct event_stream *stream);

/* socket_upgrade.c: the answer of API_SOCKET. */
enum MHD_Result socket_upgrade(struct request *request);
/* Of a connection that ended before it was one. */
void socket_upgrade_drop(struct upgrade *upgrade);
/* As if its client had gone. */
void socket_upgrade_end_all(struct front *front);

/* page_reply.c: NULL: it asks for none of the page's files. */
const struct page_file *page_of(const struct request *request);
enum MHD_Result page_reply(struct request *request, const struct page_file *file);
/* Of every answer: what it is, and what a browser may do with it. */
void page_headers(struct MHD_Response *response, const char *type);
