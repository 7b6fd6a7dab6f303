/* umbra fork --to: a machine goes on at another place, where umbra listen waits for it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire_line.h"

struct fork_away {
	const char *to;    /* HOST:PORT; NULL: it stays here */
	const char *key;   /* the file with the key of both sides; NULL: certificates */
	struct wire_certificates certificates;
	uint64_t bytes_per_s; /* at most; 0: as fast as it goes */
	unsigned wait_s;   /* how long a connection that was lost may stay so */
	bool has_wait;     /* it was said */
	struct wire_line early; /* umbra-wire, which has begun; socket -1: it has not */
};

enum { FORK_AWAY_WAIT_S = 60 };

struct sending;
struct fork_source;
struct fork_extents;

/* While nothing is known but that there is going to be a connection. */
void fork_away_load(struct fork_away *away);
/* What was loaded, and was not needed. */
void fork_away_unload(struct fork_away *away);
/* Of a machine that is called `child` there: NULL, with the exit code; or as *ret_code 0. */
struct sending *fork_away_begin(struct fork_away *away, const char *child, int *ret_code);
/* Ahead of time, without waiting for it; what fails is tried again when it is needed. */
void fork_away_connect(struct sending *sending);
/*
 * Until it runs there; 0 or the exit code: it does not. Of which machine it is, and what that says
 * of itself: what others of it have asked for goes ahead (fork_wanted.h).
 */
int fork_away_deliver(struct sending *sending, struct fork_source *source,
		      const struct fork_extents *extents, const char *machine, const json_t *info);
/* The rest of its memory and of its disks, while it runs there. 0 or the exit code. */
int fork_away_send_rest(struct sending *sending);
/* For the next one. */
void fork_away_keep_wanted(struct sending *sending, const char *machine, const json_t *info);
/*
 * Bytes in all; how many blocks were asked for; how many were sent before; how long it took from
 * fork_away_begin() until it was heard to run, and how many bytes had been sent by then, in whole
 * blocks.
 */
struct fork_away_counts { uint64_t bytes, wants, ahead, until_it_ran_ns, bytes_before; };
struct fork_away_counts fork_away_count(const struct sending *sending);
void fork_away_end(struct sending *sending);
