/*
 * A day of events, by a clock that is the test's: the daemon ends in order, or as if it were
 * killed, and begins anew every some minutes, its store is locked now and then, and readers sleep
 * for seconds or hours. Each of them hears of each event once, in their order; one that comes new
 * to a daemon that has just begun hears of none that was before.
 *
 *   told by serial numbers --> events, the store --> readers, each with the number up to which it
 *                                                    was told, also of what the daemon before told
 *
 * Killed it is while nothing waits for the store: what waits in memory then is lost (events.h, 1).
 * usage: events_day_test HOURS SEED
 */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/events.h"

enum { MS_PER_S = 1000, NS_PER_MS = 1000000, S_PER_HOUR = 3600 };
enum { READERS = 8, BATCH = 64, EVENT_MS = 8000, LIFE_MS = 400000, LOCKED_MS = 60000 };
enum { ONE_IN = 40 /* events finds the store locked */ };

/* heard: how many; told: the number of the last in the journal. */
struct slow_reader { uint64_t told, heard, wakes_ms, sleeps_ms; };

struct day {
	struct loop loop;
	struct events events;
	struct store *store;
	char path[64];
	uint64_t told, ends_ms, locks, restarts, kills;
	struct slow_reader reader[READERS];
};

static uint64_t now_ms, locked_until_ms;
static int failed;

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __real_store_append(struct store *store, const char *id, const char *text, uint64_t *ret);
int __wrap_store_append(struct store *store, const char *id, const char *text, uint64_t *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void)clock;
	*ret = (struct timespec){ .tv_sec = (time_t)(now_ms / MS_PER_S),
				  .tv_nsec = (long)(now_ms % MS_PER_S) * NS_PER_MS };
	return 0;
}

int __wrap_store_append(struct store *store, const char *id, const char *text, uint64_t *ret)
{
	return now_ms < locked_until_ms ? -EBUSY : __real_store_append(store, id, text, ret);
}

static void check(const char *what, uint64_t got, uint64_t wanted)
{
	if (got == wanted)
		return;
	printf("events_day: %s: %lu, not %lu\n", what, got, wanted);
	failed = 1;
}

/* From 1 on, on average so many. */
static uint64_t some(uint64_t average) { return 1 + (uint64_t)random() % (2 * average); }

/* ---- readers ---- */

static bool hear(void *context, uint64_t sequence, const char *text)
{
	struct slow_reader *reader = context;
	json_t *event = json_loads(text, 0, NULL);
	const char *subject = json_string_value(json_object_get(event, "subject"));

	if (sequence <= reader->told || !subject || strtoull(subject, NULL, 10) != reader->heard) {
		printf("events_day: event %lu is %s, after %lu\n", sequence, text, reader->told);
		failed = 1;
	}
	reader->heard++;
	reader->told = sequence;
	json_decref(event);
	return true;
}

/* Once it is awake it takes one batch after the other, as long as there is one. */
static void read_all(struct day *day, struct slow_reader *reader)
{
	uint64_t before;

	do {
		before = reader->heard;
		check("since", (uint64_t)store_since(day->store, reader->told, BATCH, hear, reader),
		      0);
	} while (reader->heard != before && !failed);
}

static void wake_readers(struct day *day)
{
	for (unsigned n = 0; n < READERS; n++)
		if (now_ms >= day->reader[n].wakes_ms) {
			read_all(day, &day->reader[n]);
			day->reader[n].wakes_ms = now_ms + some(day->reader[n].sleeps_ms);
		}
}

/* ---- the daemon ---- */

static void begin(struct day *day)
{
	const uint64_t last = day->events.last;

	check("a loop", (uint64_t)loop_open(&day->loop), 0);
	check("a store", (uint64_t)store_open(day->path, NULL, &day->store), 0);
	assert(!failed);
	check("events", (uint64_t)events_open(&day->events, &day->loop, day->store), 0);
	check("numbers go on", day->events.last, last);
	day->ends_ms = now_ms + some(LIFE_MS);
}

static void end(struct day *day)
{
	events_close(&day->events);
	store_close(day->store);
	loop_close(&day->loop);
}

/* In order when the store takes what waits, or by force when nothing does. */
static void restart(struct day *day)
{
	const bool by_force = !json_array_size(day->events.waiting) && random() % 2;

	if (now_ms < day->ends_ms || now_ms < locked_until_ms)
		return;
	check("lost", day->events.lost, 0);
	day->restarts++;
	day->kills += by_force;
	if (by_force) /* nothing is done in order */
		day->events.store = NULL;
	end(day);
	begin(day);
}

static void tell(struct day *day)
{
	char serial[24];

	if (!(random() % ONE_IN)) {
		locked_until_ms = now_ms + some(LOCKED_MS);
		day->locks++;
	}
	snprintf(serial, sizeof(serial), "%lu", day->told++);
	events_tell(&day->events, "machine-state", serial, NULL);
}

static void live(struct day *day, uint64_t until_ms)
{
	uint64_t next_ms = now_ms;

	while (now_ms < until_ms && !failed) {
		if (now_ms >= next_ms) {
			tell(day);
			next_ms = now_ms + some(EVENT_MS);
		}
		loop_turn(&day->loop, 0);
		wake_readers(day);
		restart(day);
		now_ms += MS_PER_S / 4;
	}
}

static void finish(struct day *day)
{
	locked_until_ms = 0;
	end(day);
	begin(day);
	for (unsigned n = 0; n < READERS; n++) {
		read_all(day, &day->reader[n]);
		check("heard", day->reader[n].heard, day->told);
	}
	end(day);
}

int main(int argc, char **argv)
{
	struct day day = { .path = "/tmp/umbra-day-XXXXXX" };
	const uint64_t hours = argc > 1 ? strtoull(argv[1], NULL, 10) : 24;
	char folder[sizeof(day.path)] = "/tmp/umbra-day-XXXXXX";

	srandom(argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1);
	now_ms = 1000ull * 1000 * MS_PER_S;
	for (unsigned n = 0; n < READERS; n++)
		day.reader[n].sleeps_ms = (uint64_t)MS_PER_S << 2 * n;
	if (!mkdtemp(folder) ||
	    snprintf(day.path, sizeof(day.path), "%s/store", folder) >= (int)sizeof(day.path))
		return 2;
	begin(&day);
	live(&day, now_ms + hours * S_PER_HOUR * MS_PER_S);
	finish(&day);
	printf("%lu events, %lu restarts, %lu of them by force, %lu times locked\n", day.told,
	       day.restarts, day.kills, day.locks);
	if (!failed)
		check("all of it happened", day.kills && day.restarts > day.kills && day.locks, 1);
	if (chdir(folder) || unlink("store") || rmdir(folder))
		failed |= 2;
	return failed;
}
