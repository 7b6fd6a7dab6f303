/*
 * The life of a machine, from its first instruction to its end.
 *
 *   created --> running --> pausing --> paused <--> saving
 *                  ^                     |  ^
 *                  +---------------------+  +-----> forking            from each of them: ended
 *
 *  1. Only machine_move() changes it, only under the lock, and only as the table says.
 *  2. Before `running` memory may not be what the first instruction finds: nothing is saved.
 *  3. In `paused`, `saving` and `forking` every processor stands still, at an instruction boundary,
 *     or sleeps, and would stand still before anything else (vcpu_stand()); every unit is paused;
 *     and once machine_pause() returns the devices' thread stands still, or sleeps, too. clock.c
 *     says what its clocks show when it goes on.
 *  4. `ended` is for good, and has one reason: the first.
 *
 * Its threads: machine_start_threads() makes them all, while the process still has its rights;
 * machine_go() lets them go; machine_wait() is where the first thread is until they have ended.
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/check.h"
#include "saved.h"

/* Of translated code: what lies in large pages from the begin on, the first of them at once. */
enum { TOUCHED_BYTES = 7 << 19, TOUCHED_FIRST_BYTES = 3 << 19 };

#define TO(life) (1u << (life))
static const unsigned may_become[LIVES] = {
	[LIFE_CREATED] = TO(LIFE_RUNNING) | TO(LIFE_ENDED),
	[LIFE_RUNNING] = TO(LIFE_PAUSING) | TO(LIFE_ENDED),
	[LIFE_PAUSING] = TO(LIFE_PAUSED) | TO(LIFE_ENDED),
	[LIFE_PAUSED] = TO(LIFE_RUNNING) | TO(LIFE_SAVING) | TO(LIFE_FORKING) | TO(LIFE_ENDED),
	[LIFE_SAVING] = TO(LIFE_PAUSED) | TO(LIFE_ENDED),
	[LIFE_FORKING] = TO(LIFE_PAUSED) | TO(LIFE_ENDED),
};

static enum life life_of(const struct machine *machine)
{
	return __atomic_load_n(&machine->life, __ATOMIC_ACQUIRE);
}

bool machine_has_begun(const struct machine *machine) { return life_of(machine) != LIFE_CREATED; }
bool machine_has_ended(const struct machine *machine) { return life_of(machine) == LIFE_ENDED; }

bool machine_is_still(const struct machine *machine)
{
	enum life life = life_of(machine);

	return life >= LIFE_PAUSING && life <= LIFE_FORKING;
}

void check_lifecycle(const struct machine *machine)
{
	enum life life = life_of(machine);

	assert(life < LIVES);
	assert(machine->standing <= machine->options.cpus);
	if (life == LIFE_PAUSED || life == LIFE_SAVING || life == LIFE_FORKING)
		assert(machine->standing == machine->options.cpus);
	if (life == LIFE_CREATED)
		assert(!machine->standing);
}

/* Who stands still has nothing to do in another life in which it stands. */
static bool concerns_processors(enum life to) { return to < LIFE_PAUSED || to == LIFE_ENDED; }

/* One that sleeps stands where it is, and sleeps on when the machine does. */
static void tell_processor(struct vcpu *vcpu, enum life to)
{
	if (vcpu->sleeps && to == LIFE_PAUSING) {
		vcpu_stand(vcpu);
		return;
	}
	if (vcpu->sleeps && to == LIFE_RUNNING)
		return;
	if (to == LIFE_PAUSING || to == LIFE_ENDED)
		engine_stop(vcpu->cpu, to == LIFE_ENDED ? ENGINE_EXIT_STOP : ENGINE_EXIT_KICK);
	vcpu_wake(vcpu);
}

bool machine_move(struct machine *machine, enum life to)
{
	enum life from = life_of(machine);

	if (from == LIFE_ENDED)
		return false;
	assert(may_become[from] & TO(to));
	__atomic_store_n(&machine->life, to, __ATOMIC_RELEASE);
	for (unsigned n = 0; n < machine->options.cpus && concerns_processors(to); n++)
		tell_processor(&machine->vcpus[n], to);
	pthread_cond_broadcast(&machine->changed);
	CHECK(check_lifecycle(machine));
	return true;
}

/* ---- ends ---- */

void machine_finish(struct machine *machine, enum machine_end end)
{
	if (machine_has_ended(machine))
		return;
	machine->end = end;
	machine_move(machine, LIFE_ENDED);
}

void machine_stop(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	machine_finish(machine, MACHINE_STOPPED);
	pthread_mutex_unlock(&machine->lock);
}

void machine_crashed(struct machine *machine, const char *text, size_t bytes,
		     const uint64_t parameters[5])
{
	assert(bytes <= CRASH_TEXT_BYTES);
	if (bytes)
		memcpy(machine->crash_text, text, bytes);
	else
		snprintf(machine->crash_text, sizeof(machine->crash_text),
			 "crash parameters %lx %lx %lx %lx %lx", parameters[0], parameters[1],
			 parameters[2], parameters[3], parameters[4]);
	machine_finish(machine, MACHINE_CRASHED);
}

/* ---- pauses ---- */

int machine_wait_for_begin(struct machine *machine)
{
	int error;

	pthread_mutex_lock(&machine->lock);
	while (!machine_has_begun(machine))
		pthread_cond_wait(&machine->changed, &machine->lock);
	error = machine_has_ended(machine) ? -ECANCELED : 0;
	pthread_mutex_unlock(&machine->lock);
	return error;
}

static int check_running(struct machine *machine)
{
	enum life life;

	pthread_mutex_lock(&machine->lock);
	life = life_of(machine);
	pthread_mutex_unlock(&machine->lock);
	if (life == LIFE_ENDED)
		return -ECANCELED;
	return life == LIFE_RUNNING ? 0 : -EBUSY;
}

int machine_pause(struct machine *machine)
{
	int error = check_running(machine);

	if (error)
		return error;
	units_pause(&machine->units);
	pthread_mutex_lock(&machine->lock);
	machine_move(machine, LIFE_PAUSING);
	while (machine->standing < machine->options.cpus && !machine_has_ended(machine))
		pthread_cond_wait(&machine->changed, &machine->lock);
	error = machine_move(machine, LIFE_PAUSED) ? 0 : -ECANCELED;
	clock_stands(machine);
	machine_flush_console(machine);
	pthread_mutex_unlock(&machine->lock);
	if (error)
		units_resume(&machine->units); /* who ends the machine waits for them */
	else if (machine->devices)
		devices_hold(machine->devices);
	return error;
}

/* True: they stood still. */
static bool processors_go(struct machine *machine)
{
	uint64_t stood_ns;
	bool was_paused;

	pthread_mutex_lock(&machine->lock);
	if (life_of(machine) == LIFE_FORKING)
		machine_move(machine, LIFE_PAUSED);
	was_paused = life_of(machine) == LIFE_PAUSED;
	if (was_paused) {
		stood_ns = clock_goes_on(machine);
		if (stood_ns)
			units_stood(&machine->units, stood_ns);
		machine_move(machine, LIFE_RUNNING);
	}
	pthread_mutex_unlock(&machine->lock);
	return was_paused;
}

static void units_go(struct machine *machine)
{
	if (machine->devices)
		devices_let_go(machine->devices);
	units_resume(&machine->units);
}

bool machine_go_on(struct machine *machine) { return processors_go(machine); }

void machine_go_on_whole(struct machine *machine) { units_go(machine); }

void machine_resume(struct machine *machine)
{
	engine_release_code(machine->engine);
	if (processors_go(machine))
		units_go(machine);
}

/* Nobody waits for the threads of units before there is something for them to do. */
void machine_resume_forked(struct machine *machine)
{
	const bool goes = processors_go(machine);

	units_release(&machine->units);
	if (goes)
		units_go(machine);
}

/* ---- a whole life ---- */

int machine_meet_processors(struct machine *machine)
{
	int error = 0;

	pthread_barrier_wait(&machine->prepared);
	for (unsigned n = 0; n < machine->options.cpus && !error; n++)
		error = machine->vcpus[n].error;
	return error;
}

/* Those of the processors wait for the begin (vcpu_thread()), the others for units_release(). */
int machine_start_threads(struct machine *machine)
{
	int error = units_start(&machine->units);

	pthread_barrier_init(&machine->prepared, NULL, machine->options.cpus + 1);
	for (unsigned n = 0; n < machine->options.cpus && !error; n++) {
		struct vcpu *vcpu = &machine->vcpus[n];

		error = thread_start(&vcpu->thread, vcpu_thread, vcpu);
	}
	return error ? error : machine_meet_processors(machine);
}

void machine_go(struct machine *machine)
{
	assert(life_of(machine) == LIFE_CREATED || machine_has_ended(machine));
	code_ahead_begin(&machine->code_ahead);
	machine->refusal = machine_load(machine, &machine->refusal_text);
	if (!machine->refusal && machine->options.saved.bytes)
		generation_change(machine);
	pthread_mutex_lock(&machine->lock);
	if (machine->refusal)
		machine_finish(machine, MACHINE_REFUSED);
	else
		machine_move(machine, LIFE_RUNNING);
	/* who has waited for the begin, to pause it, finds that all units run */
	units_release(&machine->units);
	pthread_mutex_unlock(&machine->lock);
	engine_touch_ahead(machine->engine, 0, TOUCHED_FIRST_BYTES);
	code_ahead_make(machine);
	engine_touch_ahead(machine->engine, TOUCHED_FIRST_BYTES, TOUCHED_BYTES);
	machine_leave_saved(machine);
	demand_touch_first(machine);
	demand_size_pages(machine);
}

enum machine_end machine_wait(struct machine *machine)
{
	for (unsigned n = 0; n < machine->options.cpus; n++)
		thread_join(&machine->vcpus[n].thread);
	assert(machine_has_ended(machine));
	units_stop(&machine->units);
	machine_flush_console(machine);
	return machine->end;
}
