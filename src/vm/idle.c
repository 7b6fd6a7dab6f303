/*
 * Whether the machine has nothing to do: all its processors wait, each time that somebody looks.
 * Then the engine gives back what it has made for something else (engine_trim()).
 */
#include "machine_internal.h"

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
	unsigned idle_s;

	pthread_mutex_lock(&machine->lock);
	machine->idle_looks = is_idle(machine) ? machine->idle_looks + 1 : 0;
	idle_s = machine->idle_looks; /* it looks every second */
	pthread_mutex_unlock(&machine->lock);
	if (idle_s)
		engine_trim(machine->engine, idle_s);
}
