/*
 * The machines that the daemon knows: those that run and have a name, however they were started,
 * and those that were described to it and do not run.
 *
 * A machine that runs is found by its socket in the folder of names (control/names.h), which is
 * watched, and is then watched itself: what it says of itself is what it said last, and the end of
 * the connection is its end. The machine knows nothing of the daemon, which may come and go.
 *
 *  1. A machine whose socket takes a connection runs, and may be asked anything from then on: its
 *     broker hears it once it can. Its description comes with its first answer. One that does not
 *     run has a specification, or is forgotten.
 *  2. They are in the order of their names, of which each is one's alone. What is described runs.
 *  3. What ran when the daemon ended and does not when it is back is told as an end, once
 *     (documents "running").
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "events.h"
#include "loop.h"
#include "store/store.h"

struct machine_watch;

struct known_machine {
	const char *name;
	json_t *specification; /* NULL: it was started without the daemon */
	json_t *description;   /* NULL: it does not run, or has said nothing yet */
	struct machine_watch *watch; /* NULL: there is nothing at its place */
	char *text; /* known_machine_json() as text; NULL: it is to be made anew */
	struct known_machine *next;
};

struct machines {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct known_machine *first; /* by name */
	struct loop_source folder;
	struct loop_timer look_again;
	void (*ended)(void *context, const char *name);
	void *context;
	json_t *before; /* what ran when the daemon ended, by name, until it was looked for */
};

/* `ended` is called when a machine has ended. 0 or -errno. */
int machines_open(struct machines *machines, struct loop *loop, struct store *store,
		  struct events *events);
void machines_close(struct machines *machines);
struct known_machine *machines_find(const struct machines *machines, const char *name);
/* It is at its place and hears what it is asked; it may not have said yet what it is. */
bool known_machine_runs(const struct known_machine *machine);
/* What is said of it: its broker's words and "state"; a new reference. */
json_t *known_machine_json(const struct known_machine *machine);
/* The same as text, good until something of the machine changes; NULL: no memory. */
const char *known_machine_text(struct known_machine *machine);
/* A specification is kept for as long as it is not dropped. 0, or the store's error. */
int machines_specify(struct machines *machines, const char *name, json_t *specification);
int machines_drop_specification(struct machines *machines, const char *name);
void check_machines(const struct machines *machines);
