/* One question to every machine that runs, all at once. One that stands still is not asked. */
#pragma once

#include <jansson.h>

struct daemon;

struct ask_all {
	struct daemon *daemon;
	const char *line; /* until it is done */
	unsigned deadline_ms;
	/* answer: NULL: there was none; it may come at once. */
	void (*heard)(void *context, const char *machine, json_t *answer);
	void (*done)(void *context); /* once, as the last; may be at once, too */
	void *context;
};

void ask_all(const struct ask_all *ask);
