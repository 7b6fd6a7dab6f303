/*
 * The port at which a browser of this host finds the page: 127.0.0.1, HTTP, made when the owner
 * asks for it on his socket (POST /v1/page, umbra page).
 *
 * Everybody on this host can connect there, and so can pages of other sites, through the browser.
 * So, beside the page's own files, which say nothing of anybody, it answers only who brings a
 * session (sessions.h) with the request itself: as Authorization, or with a WebSocket as a word of
 * Sec-WebSocket-Protocol. There is no cookie: browsers give one to every port of the host, so that
 * whoever listens at another one would hear it. Host has to be the port's own address, or a name of
 * another's that leads here would be believed; Origin and Sec-Fetch-Site as at every door
 * (front.h).
 */
#pragma once

#include "front.h"

struct page_port { struct front front; unsigned number; /* 0: it is not open */ };

/* daemon: has the port from then on, for call_page(). */
void page_port_init(struct page_port *port, struct daemon *daemon);
void page_port_close(struct page_port *port);
