/*
 * The counters of a machine, from its text: lines "what: name count, name count", of which a group
 * has one for each processor, or one for all.
 */
#pragma once

#include <jansson.h>

struct daemon;

/* The control protocol's question that has them in its answer. */
#define COUNTERS_ASKED "{\"id\":1,\"do\":\"registers\"}\n"
enum { COUNTERS_MS = 2000 };

/* {"mmu":[{"hits":5},...],...}: numbers and names alone; a new reference. */
json_t *counters_json(const char *text);
/* Of a machine's answer to COUNTERS_ASKED: an empty object where it has none. */
json_t *counters_of_answer(const json_t *answer);
/*
 * Asks every machine that runs, as ask_all() does; one that has not answered in COUNTERS_MS has
 * none.
 */
void counters_ask_all(struct daemon *daemon,
		      void (*heard)(void *context, const char *machine, json_t *answer),
		      void (*done)(void *context), void *context);
