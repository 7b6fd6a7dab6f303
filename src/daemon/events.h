/*
 * What happens to machines and operations, numbered, in the store's journal: who reads it asks for
 * what came after a number, so that neither a reader that is slow nor a daemon that is started anew
 * loses any.
 *
 *  1. An event that the store does not take waits in memory, EVENTS_WAITING at most, and is tried
 *     again, under the same id; nobody is told of it before the store has it.
 *  2. The journal holds the last EVENTS_KEPT.
 *  3. Numbers go on where the journal's end: also those of a daemon that is started anew.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "loop.h"
#include "store/store.h"

enum { EVENTS_KEPT = 100000, EVENTS_WAITING = 10000 };

struct events_reader {
	void (*news)(void *context);
	void *context;
	struct events_reader *next;
};

struct events {
	struct loop *loop;
	struct store *store;
	struct events_reader *readers;
	json_t *waiting; /* an array, of each an id (store_append()) and a text */
	struct loop_timer retry;
	uint64_t last;   /* the number of the last one in the journal */
	uint64_t lost;   /* more waited than there was room for */
	unsigned untidy; /* appended since the journal was cut */
};

/* 0 or an error of the store's; events_close() is then needed as well. */
int events_open(struct events *events, struct loop *loop, struct store *store);
/* What waits the store is offered once more. */
void events_close(struct events *events);
/* subject: a machine's name, an operation's id. more: an object, released; NULL: nothing. */
void events_tell(struct events *events, const char *kind, const char *subject, json_t *more);
/* Is called whenever there is something new, until it is removed. */
void events_add_reader(struct events *events, struct events_reader *reader);
void events_remove_reader(struct events *events, struct events_reader *reader);
/* Invariant 1, and that what waits are texts. */
void check_events(const struct events *events);
/* Milliseconds since 1970. */
int64_t events_wall_ms(void);
