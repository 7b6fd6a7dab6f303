/*
 * Operations: what takes longer than an answer. Each has an id, says how far it is, can be
 * cancelled where it is a process, and is kept, also over the daemon's end, for as long as it is
 * not one of the OPERATIONS_KEPT last that have ended.
 *
 *   running --> done, failed, cancelled
 *
 *  1. OPERATIONS_RUNNING at a time, and what is done for it runs as long as it does.
 *  2. Of what is known as many are kept as there are in the list.
 *
 *   - It is in the store before anybody hears its id.
 *   - One that ran when the daemon ended has failed: nobody has heard how it ended. (What it does
 *     goes on: the process is not the daemon's.)
 *   - A result of more than OPERATION_RESULT_BYTES is not kept.
 *   - Events say an operation's state, not its result.
 */
#pragma once

#include <jansson.h>

#include "events.h"
#include "job.h"
#include "loop.h"
#include "store/store.h"

enum { OPERATIONS_KEPT = 500, OPERATIONS_RUNNING = 128, OPERATION_ID_BYTES = 40 };
enum { OPERATION_RESULT_BYTES = 64 << 10 };

struct operation {
	char id[OPERATION_ID_BYTES];
	json_t *object; /* what is said of it */
	struct job *job; /* NULL: it is none, or has ended */
	bool awaits_end; /* of its machine */
	bool is_cancelled;
	struct operations *operations;
	struct operation *next;
};

struct operations {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct operation *first; /* the newest */
	unsigned count, serial;
};

struct operation_plan {
	const char *kind; /* the API's name of what it does */
	const char *machine; /* NULL: none */
	const char *program;
	char *const *arguments; /* NULL: it is done when the machine has ended */
	bool leaves_others;
};

int operations_open(struct operations *operations, struct loop *loop, struct store *store,
		    struct events *events);
void operations_close(struct operations *operations);
/* 0, or -errno, and nothing was begun; -EAGAIN: OPERATIONS_RUNNING run. */
int operation_begin(struct operations *operations, const struct operation_plan *plan,
		    struct operation **ret);
struct operation *operation_find(const struct operations *operations, const char *id);
/* -ESRCH: it has ended, -EOPNOTSUPP: it cannot be. */
int operation_cancel(struct operation *operation);
/* It has failed, unless it has ended. error: as failure_json(), released. */
void operation_fail(struct operation *operation, json_t *error);
/* Invariants 1 and 2. */
void check_operations(const struct operations *operations);
/* Those that awaited it are done. */
void operations_machine_ended(struct operations *operations, const char *name);
