/*
 * A machine is forked: it stands still, the process that it lives in becomes two (ipc/forker.h),
 * and both machines go on.
 *
 *   in the machine                         in what was forked
 *   machine_fork_begin()                   machine_forked()   locks, code, threads that wait
 *   ... the process is forked ...          machine_fork_go()  they go on
 *   machine_resume()
 *
 *   - From machine_fork_begin() on nobody changes anything of the machine, so that its memory is a
 *     machine at an instruction boundary whenever it is looked at. Who gives it input or has wishes
 *     keeps them back until it runs again.
 *   - What belongs to a thread of the host's (timers, signal stacks, CPU time) is made anew in what
 *     was forked; what belongs to the guest is as it was. Both have the same clocks.
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
		error = machine_pause(machine);
	if (error)
		return error;
	if (machine->devices)
		devices_stand(machine->devices);
	pthread_mutex_lock(&machine->lock);
	if (!machine_move(machine, LIFE_FORKING))
		error = -ECANCELED;
	pthread_mutex_unlock(&machine->lock);
	return error;
}

static void locks_make(struct machine *machine)
{
	pthread_mutex_init(&machine->lock, NULL);
	pthread_cond_init(&machine->changed, NULL);
	pthread_barrier_init(&machine->prepared, NULL, machine->options.cpus + 1);
	machine->standing = 0;
	trace_init(&machine->trace, machine->options.trace);
}

/* They come as far as where they stand still. */
static int processors_revive(struct machine *machine)
{
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		vcpu_forked(&machine->vcpus[n]);
		thread_revive(&machine->vcpus[n].thread);
	}
	return machine_meet_processors(machine);
}

int machine_forked(struct machine *machine, int code_fd)
{
	int error;

	assert(machine->life == LIFE_FORKING);
	machine->is_forked = true;
	locks_make(machine);
	error = engine_forked(machine->engine, code_fd);
	if (error)
		return error;
	units_forked(&machine->units);
	return processors_revive(machine);
}

void machine_leave_code(struct machine *machine) { engine_leave_code(machine->engine); }

void machine_fork_go(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	while (machine->standing < machine->options.cpus)
		pthread_cond_wait(&machine->changed, &machine->lock);
	pthread_mutex_unlock(&machine->lock);
	generation_change(machine);
	units_release(&machine->units);
	machine_resume(machine);
}
