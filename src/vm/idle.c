/*
 * Whether the machine has nothing to do: all its processors wait, each time that somebody looks.
 * Then the engine gives back what it has made for something else (engine_trim()).
 */
#include "machine_internal.h"

enum { IDLE_LOOKS = 5 };

static bool is_idle(const struct machine *machine)
{
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		const struct vcpu *vcpu = &machine->vcpus[n];

		if (vcpu->activity == VCPU_RUNNING && !vcpu->halted && !vcpu->idle)
			return false;
	}
	return true;
}

void idle_tick(struct machine *machine)
{
	bool is_for_long;

	pthread_mutex_lock(&machine->lock);
	machine->idle_looks = is_idle(machine) ? machine->idle_looks + 1 : 0;
	is_for_long = machine->idle_looks >= IDLE_LOOKS;
	pthread_mutex_unlock(&machine->lock);
	if (is_for_long)
		engine_trim(machine->engine);
}
