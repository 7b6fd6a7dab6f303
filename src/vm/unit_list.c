/* See unit_list.h. */
#include "unit_list.h"

#include <assert.h>

#include "lib/check.h"

static enum unit_stage stage_of(const struct unit_list *list)
{
	return __atomic_load_n(&list->stage, __ATOMIC_ACQUIRE);
}

/* Invariant 3. */
static void units_move(struct unit_list *list, enum unit_stage from, enum unit_stage to)
{
	enum unit_stage stage = from;

	if (!__atomic_compare_exchange_n(&list->stage, &stage, to, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		assert(stage == UNITS_STOPPED);
}

void check_units(const struct unit_list *list)
{
	assert(list->count <= UNITS_MAX && stage_of(list) < UNIT_STAGES);
	for (unsigned n = 0; n < list->count; n++) {
		const struct unit *unit = &list->unit[n];

		assert(unit->ops && unit->ops->name && unit->self && unit->list == list);
		assert(!unit->ops->section == !unit->ops->archive);
		for (unsigned other = 0; other < n; other++) {
			const struct unit *before = &list->unit[other];

			assert(before->ops != unit->ops || before->number != unit->number);
			assert(before->ops == unit->ops || !unit->ops->section ||
			       before->ops->section != unit->ops->section);
		}
	}
}

void unit_add(struct unit_list *list, const struct unit_ops *ops, void *self, uint32_t number)
{
	assert(list->count < UNITS_MAX && (ops->numbered || !number));
	assert(stage_of(list) == UNITS_MADE);
	list->unit[list->count++] =
		(struct unit){ .ops = ops, .self = self, .number = number, .list = list };
	CHECK(check_units(list));
}

struct unit *unit_find(struct unit_list *list, uint32_t section, uint32_t number)
{
	for (unsigned n = 0; n < list->count; n++)
		if (section && list->unit[n].ops->section == section &&
		    list->unit[n].number == number)
			return &list->unit[n];
	return NULL;
}

bool unit_is_numbered(const struct unit_list *list, uint32_t section)
{
	for (unsigned n = 0; n < list->count; n++)
		if (section && list->unit[n].ops->section == section)
			return list->unit[n].ops->numbered;
	return false;
}

void units_reset(struct unit_list *list)
{
	assert(stage_of(list) == UNITS_MADE);
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->reset)
			list->unit[n].ops->reset(list->unit[n].self);
}

/* ---- threads ---- */

static void unit_thread(void *context)
{
	struct unit *unit = context;

	pthread_barrier_wait(&unit->list->started);
	pthread_barrier_wait(&unit->list->released);
	thread_leave_processor(&unit->thread);
	unit->ops->run(unit->self);
}

static void barriers_make(struct unit_list *list)
{
	unsigned threads = 1; /* this one */

	for (unsigned n = 0; n < list->count; n++)
		threads += list->unit[n].ops->run != NULL;
	pthread_barrier_init(&list->started, NULL, threads);
	pthread_barrier_init(&list->released, NULL, threads);
}

int units_start(struct unit_list *list)
{
	int error = 0;

	check_units(list);
	units_move(list, UNITS_MADE, UNITS_STARTED);
	barriers_make(list);
	for (unsigned n = 0; n < list->count && !error; n++) {
		struct unit *unit = &list->unit[n];

		if (unit->ops->run)
			error = thread_start(&unit->thread, unit_thread, unit);
	}
	if (!error)
		pthread_barrier_wait(&list->started);
	return error;
}

void units_forked(struct unit_list *list)
{
	units_move(list, UNITS_PAUSED, UNITS_FORKED);
	barriers_make(list);
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->forked)
			list->unit[n].ops->forked(list->unit[n].self);
}

static void threads_revive(struct unit_list *list)
{
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->run)
			thread_revive(&list->unit[n].thread);
	pthread_barrier_wait(&list->started);
}

void units_release(struct unit_list *list)
{
	if (stage_of(list) == UNITS_FORKED) {
		threads_revive(list);
		units_move(list, UNITS_FORKED, UNITS_PAUSED);
	} else {
		units_move(list, UNITS_STARTED, UNITS_RUN);
	}
	pthread_barrier_wait(&list->released);
}

void units_stop(struct unit_list *list)
{
	__atomic_store_n(&list->stage, UNITS_STOPPED, __ATOMIC_RELEASE);
	for (unsigned n = list->count; n-- > 0;) {
		struct unit *unit = &list->unit[n];

		if (unit->ops->stop)
			unit->ops->stop(unit->self);
		if (unit->ops->run)
			thread_join(&unit->thread);
	}
}

/* ---- what happens to all ---- */

void units_pause(struct unit_list *list)
{
	units_move(list, UNITS_RUN, UNITS_PAUSED);
	for (unsigned n = list->count; n-- > 0;)
		if (list->unit[n].ops->pause)
			list->unit[n].ops->pause(list->unit[n].self);
}

void units_resume(struct unit_list *list)
{
	units_move(list, UNITS_PAUSED, UNITS_RUN);
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->resume)
			list->unit[n].ops->resume(list->unit[n].self);
}

void units_destroy(struct unit_list *list)
{
	const enum unit_stage stage = stage_of(list);

	assert(stage == UNITS_MADE || stage == UNITS_STARTED || stage == UNITS_STOPPED);
	for (; list->count; list->count--) {
		struct unit *unit = &list->unit[list->count - 1];

		if (unit->ops->destroy)
			unit->ops->destroy(unit->self);
	}
}

void units_restored(struct unit_list *list)
{
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->restored)
			list->unit[n].ops->restored(list->unit[n].self);
}

void units_stood(struct unit_list *list, uint64_t ns)
{
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->stood)
			list->unit[n].ops->stood(list->unit[n].self, ns);
}

void units_tick(struct unit_list *list, unsigned seconds)
{
	for (unsigned n = 0; n < list->count; n++)
		if (list->unit[n].ops->tick)
			list->unit[n].ops->tick(list->unit[n].self, seconds);
}

size_t units_statistics(const struct unit_list *list, char *text, size_t bytes)
{
	size_t used = 0;

	for (unsigned n = 0; n < list->count && used + 1 < bytes; n++) {
		const struct unit *unit = &list->unit[n];

		if (unit->ops->statistics)
			used += unit->ops->statistics(unit->self, text + used, bytes - used);
	}
	return used;
}
