/* See events.h. */
#include "events.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "lib/check.h"

enum { RETRY_MS = 500, UNTIDY = 1000, ID_WORDS = 2, ID_BYTES = ID_WORDS * 16 + 1 };
enum event_part { EVENT_ID, EVENT_TEXT };

int64_t events_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Of what waits. */
static const json_t *part_of(const struct events *events, size_t n, enum event_part part)
{
	return json_array_get(json_array_get(events->waiting, n), part);
}

void check_events(const struct events *events)
{
	assert(json_is_array(events->waiting));
	assert(json_array_size(events->waiting) <= EVENTS_WAITING);
	for (size_t n = 0; n < json_array_size(events->waiting); n++)
		assert(json_is_string(part_of(events, n, EVENT_ID)) &&
		       json_is_string(part_of(events, n, EVENT_TEXT)));
}

static void events_retry(void *context);

int events_open(struct events *events, struct loop *loop, struct store *store)
{
	*events = (struct events){ .loop = loop, .store = store, .waiting = json_array() };
	events->retry = (struct loop_timer){ .due = events_retry, .context = events };
	return store_last(store, &events->last);
}

/* How many of those that wait the store has taken. */
static size_t append_waiting(struct events *events)
{
	size_t taken = 0;

	while (taken < json_array_size(events->waiting)) {
		const char *id = json_string_value(part_of(events, taken, EVENT_ID));
		const char *text = json_string_value(part_of(events, taken, EVENT_TEXT));

		if (store_append(events->store, id, text, &events->last))
			break;
		taken++;
	}
	for (size_t n = 0; n < taken; n++)
		json_array_remove(events->waiting, 0);
	return taken;
}

void events_close(struct events *events)
{
	if (events->store)
		append_waiting(events); /* once more: nobody else has it */
	loop_unset(events->loop, &events->retry);
	json_decref(events->waiting);
}

static void cut_journal(struct events *events, size_t more)
{
	events->untidy += (unsigned)more;
	if (events->untidy >= UNTIDY && !store_forget(events->store, EVENTS_KEPT))
		events->untidy = 0;
}

static void pass_on(struct events *events)
{
	size_t taken = append_waiting(events);
	struct events_reader *next;

	if (json_array_size(events->waiting))
		loop_set(events->loop, &events->retry, RETRY_MS);
	if (!taken)
		return;
	cut_journal(events, taken);
	for (struct events_reader *reader = events->readers; reader; reader = next) {
		next = reader->next;
		reader->news(reader->context);
	}
}

static void events_retry(void *context) { pass_on(context); }

/* That no other event has. */
static void make_id(char ret[ID_BYTES])
{
	uint64_t random[ID_WORDS];

	const int error = getentropy(random, sizeof(random));

	assert(!error);
	snprintf(ret, ID_BYTES, "%016lx%016lx", random[0], random[1]);
}

void events_tell(struct events *events, const char *kind, const char *subject, json_t *more)
{
	json_t *event = json_pack("{s:s, s:s, s:I}", "kind", kind, "subject", subject, "at",
				  (json_int_t)events_wall_ms());
	char id[ID_BYTES];
	char *text;

	make_id(id);
	if (more)
		json_object_update_missing(event, more);
	json_decref(more);
	text = json_dumps(event, JSON_COMPACT);
	json_decref(event);
	if (text && json_array_size(events->waiting) < EVENTS_WAITING)
		json_array_append_new(events->waiting, json_pack("[s, s]", id, text));
	else
		events->lost++;
	free(text);
	CHECK(check_events(events));
	pass_on(events);
}

void events_add_reader(struct events *events, struct events_reader *reader)
{
	reader->next = events->readers;
	events->readers = reader;
}

void events_remove_reader(struct events *events, struct events_reader *reader)
{
	for (struct events_reader **at = &events->readers; *at; at = &(*at)->next)
		if (*at == reader) {
			*at = reader->next;
			return;
		}
}
