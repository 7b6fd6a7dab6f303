/*
 * Who may ask through the page's port (page_port.h): a browser that brings what a session was given
 * for a ticket, which the owner got on his socket.
 *
 *   POST /v1/page (the owner's socket) -> ticket, in the fragment of an address
 *   POST /v1/session, ticket           -> session, which is sent along with every request
 *
 *  1. A ticket is good once, and for TICKET_MS; a session until it was not used for SESSION_MS.
 *     Both are 256 random bits, and end with the daemon.
 *  2. There are TICKETS and SESSIONS at most: the one that would have ended first goes.
 *  3. What is compared is compared in a time that does not say how much of it is right.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { SECRET_TEXT_BYTES = 65, TICKETS = 8, SESSIONS = 16 };
enum { TICKET_MS = 5 * 60 * 1000, SESSION_MS = 12 * 60 * 60 * 1000 };

struct secret { char text[SECRET_TEXT_BYTES]; uint64_t until_ms; };

struct sessions { struct secret ticket[TICKETS], session[SESSIONS]; };

/* now_ms: of CLOCK_MONOTONIC, as in all of them. */
void sessions_ticket(struct sessions *sessions, uint64_t now_ms, char ret[SECRET_TEXT_BYTES]);
/* False: no such ticket, or not any more. */
bool sessions_enter(struct sessions *sessions, uint64_t now_ms, const char *ticket,
		    char ret[SECRET_TEXT_BYTES]);
/* Whether it is a session's; it is used with that. */
bool sessions_knows(struct sessions *sessions, uint64_t now_ms, const char *text);
/* All of them, and the tickets. */
void sessions_end(struct sessions *sessions);
/* What can be seen of invariant 1: each place has a secret of its own, or nothing. */
void check_sessions(const struct sessions *sessions);
