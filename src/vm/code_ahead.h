/*
 * Code of a machine that goes on from a file, which is made before its processors come to it: what
 * they came to while it was saved (engine_find_code()), by the thread that waits for the machine's
 * end. The file says which, and says no more than a hint (engine_make_code()).
 *
 *   - What is named lies in the file, which stays mapped until it is made.
 *   - Who makes it holds the engine's lock now and then: a machine is not forked before he has let
 *     go of it for good (code_ahead_end()).
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;

struct code_ahead {
	pthread_mutex_t making; /* held from before the begin until it is made, or enough is */
	bool is_enough;         /* atomic */
	const uint8_t *places;  /* struct engine_place; in the file */
	size_t count;
};

void code_ahead_init(struct code_ahead *ahead);
/* Before its processors run, on the thread that then calls code_ahead_make(). */
void code_ahead_begin(struct code_ahead *ahead);
/* The payload of a section of the file; false: it is none. */
bool code_ahead_take(struct code_ahead *ahead, const uint8_t *data, size_t bytes);
/* While they run. */
void code_ahead_make(struct machine *machine);
/* From another thread: nobody makes any more. Waits for who makes, once memory is there. */
void code_ahead_end(struct code_ahead *ahead);
