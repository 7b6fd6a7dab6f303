/* See code_ahead.h. */
#include "code_ahead.h"

#include <string.h>

#include "machine_internal.h"

void code_ahead_init(struct code_ahead *ahead)
{
	*ahead = (struct code_ahead){ .making = PTHREAD_MUTEX_INITIALIZER };
}

void code_ahead_begin(struct code_ahead *ahead) { pthread_mutex_lock(&ahead->making); }

bool code_ahead_take(struct code_ahead *ahead, const uint8_t *data, size_t bytes)
{
	const size_t count = bytes / sizeof(struct engine_place);

	if (ahead->places || bytes % sizeof(struct engine_place) || count > ENGINE_PLACES_MOST)
		return false;
	ahead->places = data;
	ahead->count = count;
	return true;
}

static bool is_enough(const struct machine *machine)
{
	return machine_has_ended(machine) ||
	       __atomic_load_n(&machine->code_ahead.is_enough, __ATOMIC_RELAXED);
}

void code_ahead_make(struct machine *machine)
{
	struct code_ahead *ahead = &machine->code_ahead;

	engine_know_places(machine->engine, ahead->places, ahead->count);
	for (size_t n = 0; n < ahead->count && !is_enough(machine); n++) {
		struct engine_place place;

		memcpy(&place, ahead->places + n * sizeof(place), sizeof(place));
		engine_make_code(machine->engine, &place);
	}
	engine_know_places(machine->engine, NULL, 0);
	pthread_mutex_unlock(&ahead->making);
}

void code_ahead_end(struct code_ahead *ahead)
{
	__atomic_store_n(&ahead->is_enough, true, __ATOMIC_RELAXED);
	pthread_mutex_lock(&ahead->making);
	pthread_mutex_unlock(&ahead->making);
}
