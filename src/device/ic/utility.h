/*
 * What a guest's integration drivers (hv_utils) talk to, a channel each: a shutdown that is asked
 * for, a heartbeat, and the time of day.
 *
 * How a channel begins is in ic_frame.h. Lock: the channel's. Messages: framework 3.0 or 1.0;
 * shutdown and heartbeat 3.0 or 1.0, time 4.0.
 */
#pragma once

#include "vmbus/vmbus.h"

enum utility_kind { UTILITY_SHUTDOWN, UTILITY_HEARTBEAT, UTILITY_TIME, UTILITY_KINDS };
enum utility_health { HEALTH_UNKNOWN, HEALTH_GOOD, HEALTH_LOST };

struct utility_clock {
	uint64_t (*reference_100ns)(void *context); /* the partition's */
	uint64_t (*utc_100ns)(void *context);       /* since 1601 */
	void *context;
};

struct utility;
struct archive;

/* The unit: a struct utility; they are numbered by their kind. */
extern const struct unit_ops utility_unit;

/* On a bus that does not run yet. NULL: no memory, or no channel. */
struct utility *utility_create(struct bus *bus, enum utility_kind kind,
			       const struct utility_clock *clock);
void utility_destroy(struct utility *utility);
/* Asks the guest to power off. False: nobody listens, or its ring is full. */
bool utility_shut_down(struct utility *utility);
/*
 * Each second or two: the next beat, or a sample of the time; the guest is to take it where the
 * partition's clocks stood still.
 */
void utility_tick(struct utility *utility);
/* Of the heartbeat: lost when the guest has not answered the last beats. */
enum utility_health utility_health(struct utility *utility);
/* As bytes and back, before anything runs or while it stands still. */
void utility_archive(struct archive *archive, struct utility *utility);
