/*
 * Which pages of a machine those that were sent elsewhere have asked for: frames, kept beside its
 * name, so that the next one is sent them before it asks (fork_away.c).
 *
 *   "UMBRAWNT"   u64 process, u64 start of the machine   runs { u32 first frame, u32 pages } ...
 *
 *  1. They are a guess, and no more: what is in the file is checked against what is sent, and one
 *     of another machine, or that is damaged, is none. Of frames alone nothing is learned.
 *  2. No more than FORK_WANTED_RUNS runs, in the order in which they were asked for. They are
 *     looked for in an index whose sections lie in the order of the file, none of them empty.
 *  3. Nobody waits for the file, and nothing is lost with it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vm/saved_pages.h"

enum { FORK_WANTED_RUNS = 4096 };

struct fork_source;

struct fork_wanted_run { uint32_t first, pages; };
struct fork_wanted {
	struct saved_pages pages; /* of what is sent: the index alone */
	struct fork_wanted_run run[FORK_WANTED_RUNS];
	uint32_t runs;
};

/* Of a source with its index; nothing is wanted yet. 0 or -errno: then it cannot be used. */
int fork_wanted_open(struct fork_wanted *wanted, struct fork_source *source);
/* Whether something is kept for the machine of this name, of whichever machine that was. */
bool fork_wanted_is_kept(const char *machine);
void fork_wanted_close(struct fork_wanted *wanted);
/* What lies in these bytes of what is sent was asked for. */
void fork_wanted_add(struct fork_wanted *wanted, uint64_t at, uint64_t bytes);
/* Calls for each section that has any of what was asked for the last time, in that order. */
void fork_wanted_find(const struct fork_wanted *wanted,
		      void (*found)(void *context, const struct saved_entry *entry), void *context);
/* info: what the machine says of itself. Without a file there are none. */
void fork_wanted_load(struct fork_wanted *wanted, const char *machine, const json_t *info);
/* Also what another one has, as far as there is room for it. */
void fork_wanted_join(struct fork_wanted *wanted, const struct fork_wanted *other);
/* Invariant 2. */
void check_fork_wanted(const struct fork_wanted *wanted);
void fork_wanted_keep(const struct fork_wanted *wanted, const char *machine, const json_t *info);
