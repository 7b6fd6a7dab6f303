/*
 * The web page that the daemon serves: its files, as they stand in this folder, inside the program
 * (tools/embed-page), so that what is served is what was built. They are the same for everybody and
 * hold nothing of anybody's; what they show they ask the API for.
 *
 *   index.html  what is painted first; it has no script and no style of its own
 *   style.css   colours of both schemes, narrow screens
 *   main.js     who is let in, which view there is; *-view.js one view each
 *   api.js      requests, events, operations, WebSockets
 *   dom.js, chart.js, terminal.js   elements, lines over time, a terminal
 *
 *   - Nothing is asked for elsewhere, and no script or style stands in the text: the policy that is
 *     sent along (daemon/page_reply.c) would refuse it.
 *   - Words of machines become text of elements, never markup.
 */
#pragma once

#include <stddef.h>

struct page_file {
	const char *path; /* "/" or "/page/NAME" */
	const char *type;
	const unsigned char *data;
	size_t bytes;
};

/* Ended by one without a path. */
extern const struct page_file page_files[];

/* NULL: there is none. */
const struct page_file *page_find(const char *path);
