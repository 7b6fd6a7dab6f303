/*
 * Where the processors are: each says it itself, on its own thread, when it is asked to (by
 * machine_look(), and every second by the ticker). One that executes the guest leaves its engine
 * for that, which costs some microseconds; one that sleeps wakes.
 *
 *   asker                                     processor
 *   look_wanted = true, engine_stop, wake     looks before it sleeps, goes on, or stands still
 *   waits for `looked`, at most a second      registers, look_wanted = false, `looked`
 */
#include "kallsyms.h"
#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void look_ask(struct vcpu *vcpu)
{
	vcpu->look_wanted = true;
	engine_stop(vcpu->cpu, ENGINE_EXIT_KICK);
	vcpu_wake(vcpu);
}

/* On its own thread. */
static enum machine_cpu_state state_of(struct vcpu *vcpu, uint64_t rflags)
{
	if (vcpu->activity != VCPU_RUNNING)
		return MACHINE_CPU_WAITS;
	if (!vcpu->halted && !vcpu->idle)
		return MACHINE_CPU_RUNS;
	return rflags & FLAG_IF && timer_run(vcpu) == UINT64_MAX ? MACHINE_CPU_ASLEEP
								 : MACHINE_CPU_HALTED;
}

static void take_registers(struct vcpu *vcpu)
{
	struct machine_registers *registers = &vcpu->registers;
	struct engine_state state;

	engine_get(vcpu->cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	*registers = (struct machine_registers){
		.rip = state.x86.rip,
		.rflags = state.x86.rflags,
		.cr0 = state.x86.cr0,
		.cr2 = state.x86.cr2,
		.cr3 = state.x86.cr3,
		.cr4 = state.x86.cr4,
		.efer = state.x86.efer,
		.lstar = state.x86.lstar,
		.cs = state.x86.segment[X86_CS].selector,
		.ss = state.x86.segment[X86_SS].selector,
		.state = state_of(vcpu, state.x86.rflags),
		.fault_vector = state.fault_vector,
	};
	memcpy(registers->gpr, state.x86.gpr, sizeof(registers->gpr));
}

void look_take(struct vcpu *vcpu)
{
	if (!vcpu->look_wanted)
		return;
	take_registers(vcpu);
	vcpu->look_wanted = false;
	pthread_cond_broadcast(&vcpu->machine->looked);
	stuck_sample(vcpu);
}

static bool all_have_looked(const struct machine *machine)
{
	for (unsigned n = 0; n < machine->options.cpus; n++)
		if (machine->vcpus[n].look_wanted)
			return false;
	return true;
}

/* In which function of a Linux kernel each is, where one is found. */
static void name_places(const struct machine *machine, struct machine_registers *registers,
			unsigned count)
{
	_Static_assert((int)MACHINE_SYMBOL_BYTES == (int)KALLSYMS_NAME_BYTES, "it has room");
	struct kallsyms symbols;
	bool looked = false;
	bool found = false;

	if (!demand_seems_whole(machine)) /* it would wait for much of it */
		return;
	for (unsigned n = 0; n < count; n++) {
		if (!kallsyms_may_name(registers[n].rip))
			continue;
		if (!looked)
			found = kallsyms_find(&symbols, &machine->memory, registers[n].cr3);
		looked = true;
		if (found)
			kallsyms_name(&symbols, registers[n].rip, registers[n].symbol);
	}
}

int machine_look(struct machine *machine, struct machine_registers ret[MACHINE_MAX_CPUS],
		 unsigned *ret_cpus)
{
	struct timespec until;
	int error = machine_wait_for_begin(machine);

	if (error)
		return error;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 1;
	pthread_mutex_lock(&machine->lock);
	for (unsigned n = 0; n < machine->options.cpus; n++)
		look_ask(&machine->vcpus[n]);
	while (!error && !machine_has_ended(machine) && !all_have_looked(machine))
		error = pthread_cond_timedwait(&machine->looked, &machine->lock, &until);
	error = all_have_looked(machine) ? 0 : -EAGAIN;
	for (unsigned n = 0; n < machine->options.cpus; n++)
		ret[n] = machine->vcpus[n].registers;
	*ret_cpus = machine->options.cpus;
	pthread_mutex_unlock(&machine->lock);
	name_places(machine, ret, *ret_cpus);
	return error;
}
