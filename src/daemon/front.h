/*
 * HTTP/1.1 in front of the API, by libmicrohttpd in the daemon's loop: on a Unix socket, where only
 * the owner is heard (SO_PEERCRED), and, when it is asked for, on a TCP port with TLS, where only
 * who brings the token is, and on a port of the loopback address, where only who brings a session
 * is (page_port.h). The files of the page (page/page.h) are given to everybody who may connect.
 *
 *   - A request is read whole before anything is done; of a body FRONT_BODY_BYTES at most.
 *   - Who waits for an answer costs a suspended connection and nothing else.
 *   - A request from a page of another origin (Origin, Sec-Fetch-Site) is refused, and so is a body
 *     that is not declared as JSON, which a page could send without being asked.
 *     Who is not heard is told so before his body comes, or without keeping it.
 *   - FRONT_CONNECTIONS at a time, FRONT_IDLE_S each without a byte; more wait to be accepted.
 */
#pragma once

#include <stdbool.h>

#include "daemon.h"

struct MHD_Daemon;
struct sessions;
struct request;

enum {
	FRONT_BODY_BYTES = 1 << 20,
	FRONT_BODIES_BYTES = 32 << 20, /* of all bodies that are being read */
	FRONT_CONNECTIONS = 1100,
	FRONT_IDLE_S = 30,
	FRONT_STREAMS = 128, /* events and WebSockets, together */
	FRONT_PAGE_CONNECTIONS = 64, /* where others of this host may connect, too */
	FRONT_HOST_BYTES = 32
};

/*
 * Whom a TCP port hears; all texts, PEM and the token, are the caller's. By TLS: certificate, key,
 * token; otherwise sessions.
 */
struct front_door { const char *certificate, *key, *token; struct sessions *sessions; };

struct front {
	struct daemon *daemon;
	struct MHD_Daemon *http;
	struct loop_source source;
	struct loop_timer beat; /* streams that have nothing to say show that they live */
	struct request *requests;
	struct upgrade *upgrades; /* their WebSockets */
	const char *token;
	struct sessions *sessions; /* without a token or this the kernel says who connects */
	char host[FRONT_HOST_BYTES]; /* of sessions: what Host has to be */
	bool http_ends; /* streams come to their end */
	bool is_due; /* libmicrohttpd has something to do */
	unsigned closing; /* turns that it may need yet, to close what was a WebSocket by TLS */
	unsigned streams;
	size_t bodies_bytes;
};

/*
 * listener: bound and listening, the front's from now on; after -errno the caller's still.
 * door: NULL: a Unix socket. 0 or -errno.
 */
int front_open(struct front *front, struct daemon *daemon, int listener,
	       const struct front_door *door);
void front_close(struct front *front);
/* Streams of those who were let in until now come to their end. */
void front_end_streams(struct front *front);
/* Before each turn of the loop: does what is due, and says how long the loop may wait (or -1). */
int64_t front_turn(struct front *front);
