/*
 * A machine is forked: it stands still, the process that it lives in becomes two (ipc/forker.h),
 * and both machines go on.
 *
 *   in the machine                         in what was forked
 *   machine_fork_begin()
 *   ... the process is forked ...
 *   machine_go_on()                        machine_take_code()
 *   machine_resume()                       machine_forked()        locks, processors that stand
 *                                          machine_forked_whole()  units, another generation id
 *                                          machine_fork_go()       processors go on, then units
 *
 *   - From machine_fork_begin() on nobody changes anything of the machine, so that its memory is a
 *     machine at an instruction boundary whenever it is looked at. Who gives it input or has wishes
 *     keeps them back until it runs again.
 *   - What belongs to a thread of the host's (timers, signal stacks, CPU time) is made anew in what
 *     was forked; what belongs to the guest is as it was. Both have the same clocks.
 *   - Translated code is the one thing that what was forked reads of the other's. It is held until
 *     machine_resume(), which may come before machine_go_on(), or in its place.
 *   - Locks and conditions are made anew: their holders and sleepers were threads of the other.
 */
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>

int machine_fork_begin(struct machine *machine)
{
	int error = machine_wait_for_begin(machine);

	if (!error)
		error = demand_wait_whole(machine);
	if (!error)
		code_ahead_end(&machine->code_ahead);
	if (!error)
		error = machine_pause(machine);
	if (error)
		return error;
	if (machine->devices)
		devices_stand(machine->devices);
	ticker_drop_span(machine);
	pthread_mutex_lock(&machine->lock);
	if (machine_move(machine, LIFE_FORKING))
		engine_hold_code(machine->engine);
	else
		error = -ECANCELED;
	pthread_mutex_unlock(&machine->lock);
	return error;
}

int machine_take_code(struct machine *machine, int code_fd)
{
	assert(machine->life == LIFE_FORKING);
	return engine_forked(machine->engine, code_fd);
}

static void locks_make(struct machine *machine)
{
	pthread_mutex_init(&machine->lock, NULL);
	pthread_cond_init(&machine->changed, NULL);
	machine->standing = 0;
	trace_init(&machine->trace, machine->options.trace);
}

/* They come as far as where they stand still. */
static void processors_revive(struct machine *machine)
{
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		vcpu_forked(&machine->vcpus[n]);
		thread_revive(&machine->vcpus[n].thread);
	}
}

/* Its processors come while the rest is made, which they need no earlier than they are let go. */
int machine_forked(struct machine *machine)
{
	int error;

	assert(machine->life == LIFE_FORKING);
	machine->is_forked = true;
	locks_make(machine);
	error = engine_forked_bare(machine->engine);
	if (!error)
		processors_revive(machine);
	return error;
}

/* Who stands still has made all the calls that only a thread at its begin makes. */
static int meet_standing(struct machine *machine)
{
	int error = 0;

	pthread_mutex_lock(&machine->lock);
	while (machine->standing < machine->options.cpus)
		pthread_cond_wait(&machine->changed, &machine->lock);
	pthread_mutex_unlock(&machine->lock);
	for (unsigned n = 0; n < machine->options.cpus && !error; n++)
		error = machine->vcpus[n].error;
	return error;
}

int machine_forked_whole(struct machine *machine)
{
	units_forked(&machine->units);
	generation_change(machine);
	return meet_standing(machine);
}

void machine_leave_code(struct machine *machine) { engine_leave_code(machine->engine); }

void machine_fork_go(struct machine *machine) { machine_resume_forked(machine); }
