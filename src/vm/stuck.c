/*
 * A machine that is stuck says so, in one line: why, which processor, where it is, and what the
 * console ended with.
 *
 * All processors halted with interrupts disabled is for good: nothing in a machine raises an NMI
 * but a processor, and only a processor sends INIT.
 *
 * A processor that spins with interrupts disabled is told from one that works by what it has in its
 * registers: SPIN_SAMPLES times, a second apart, it was within SPIN_BYTES of code with all but one
 * general register the same, and has asked no device meanwhile (who polls one may wait for a key).
 * A loop that gets on moves a pointer and a counter, or a pointer and data. Left out: spins with
 * interrupts enabled, in which a kernel says so itself.
 */
#include "machine_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 400, GPRS = 16 };
enum { SPIN_SAMPLES = 10, SPIN_BYTES = 256, SPIN_CHANGES = 1 };
#define SPIN_RUNTIME_100NS 10000000ull /* of all samples together: 1 s */

void stuck_console_byte(struct machine *machine, uint8_t byte)
{
	assert(machine->line_used <= CONSOLE_LINE_BYTES);
	if (byte == '\n') {
		if (machine->line_used) {
			memcpy(machine->last_line, machine->line, machine->line_used);
			machine->last_line[machine->line_used] = 0;
		}
		machine->line_used = 0;
	} else if (byte >= ' ' && byte < 0x7f && machine->line_used < CONSOLE_LINE_BYTES) {
		machine->line[machine->line_used++] = (char)byte;
	}
}

/* Of a processor that is not in engine_run(). */
static void stuck_describe(const struct vcpu *vcpu, const char *reason, bool fault, char *text,
			   size_t bytes)
{
	const struct machine *machine = vcpu->machine;
	struct engine_state state;
	int used;

	engine_get(vcpu->cpu, ENGINE_GENERAL | ENGINE_CONTROL | ENGINE_EVENTS, &state);
	used = snprintf(text, bytes, "%s: processor %u at RIP %#lx, CR2 %#lx", reason, vcpu->index,
			state.x86.rip, state.x86.cr2);
	if (fault && used > 0 && (size_t)used < bytes)
		used += snprintf(text + used, bytes - (size_t)used, ", after exception %u",
				 state.fault_vector);
	if (machine->last_line[0] && used > 0 && (size_t)used < bytes)
		snprintf(text + used, bytes - (size_t)used, "; its console ended with: %s",
			 machine->last_line);
}

void stuck_triple_fault(struct vcpu *vcpu)
{
	static const uint64_t no_parameters[5];
	char text[LINE_BYTES];

	stuck_describe(vcpu, "triple fault", true, text, sizeof(text));
	machine_crashed(vcpu->machine, text, strlen(text), no_parameters);
}

/* Halted, and no interrupt that comes will wake it. */
static bool is_dead(const struct vcpu *vcpu)
{
	struct engine_state state;

	if (vcpu->activity == VCPU_WAITS_FOR_SIPI)
		return true;
	if (!vcpu->halted || vcpu->idle || vcpu->init_pending || vcpu->start_pending ||
	    engine_has_nmi(vcpu->cpu))
		return false;
	engine_get(vcpu->cpu, ENGINE_GENERAL, &state);
	return !(state.x86.rflags & FLAG_IF);
}

void stuck_look(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;
	char text[LINE_BYTES];

	if (machine->stuck_told || !machine->options.stuck || vcpu->activity != VCPU_RUNNING)
		return;
	for (unsigned n = 0; n < machine->options.cpus; n++)
		if (!is_dead(&machine->vcpus[n]))
			return;
	machine->stuck_told = true;
	stuck_describe(vcpu, "every processor is halted with interrupts disabled", false, text,
		       sizeof(text));
	machine->options.stuck(machine->options.context, text);
}

/* ---- a spin ---- */

/* Whether this could be the same loop as at the first sample. */
static bool is_same_spin(const struct vcpu *vcpu, const struct machine_registers *now)
{
	const struct spin *first = &vcpu->spin;
	unsigned changes = 0;

	if (!first->samples || first->devices_asked != vcpu->devices_asked ||
	    now->rip - first->rip + SPIN_BYTES > 2 * SPIN_BYTES)
		return false;
	for (unsigned n = 0; n < GPRS; n++)
		changes += now->gpr[n] != first->gpr[n];
	return changes <= SPIN_CHANGES;
}

static void begin_spin(struct vcpu *vcpu, const struct machine_registers *now)
{
	vcpu->spin = (struct spin){ .samples = 1,
				    .rip = now->rip,
				    .devices_asked = vcpu->devices_asked,
				    .runtime_100ns = vcpu_runtime_100ns(vcpu) };
	memcpy(vcpu->spin.gpr, now->gpr, sizeof(vcpu->spin.gpr));
}

static void look_for_spin(struct vcpu *vcpu)
{
	const struct machine_registers *now = &vcpu->registers;
	struct machine *machine = vcpu->machine;
	char text[LINE_BYTES];

	if (now->rflags & FLAG_IF || now->state != MACHINE_CPU_RUNS) {
		vcpu->spin.samples = 0;
		return;
	}
	if (!is_same_spin(vcpu, now)) {
		begin_spin(vcpu, now);
		return;
	}
	if (++vcpu->spin.samples < SPIN_SAMPLES || machine->stuck_told || !machine->options.stuck ||
	    vcpu_runtime_100ns(vcpu) - vcpu->spin.runtime_100ns < SPIN_RUNTIME_100NS)
		return;
	machine->stuck_told = true;
	stuck_describe(vcpu, "a processor spins with interrupts disabled", true, text,
		       sizeof(text));
	machine->options.stuck(machine->options.context, text);
}

/* ---- a limit of time ---- */

/* The first processor that executes something; the boot processor when none does. */
static const struct vcpu *most_telling(const struct machine *machine)
{
	assert(machine->options.cpus);
	for (unsigned n = 0; n < machine->options.cpus; n++)
		if (machine->vcpus[n].activity == VCPU_RUNNING && !machine->vcpus[n].halted &&
		    !machine->vcpus[n].idle)
			return &machine->vcpus[n];
	return &machine->vcpus[0];
}

static void end_for_time(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;
	char reason[LINE_BYTES];

	if (vcpu != most_telling(machine))
		return;
	snprintf(reason, sizeof(reason), "not done after %u s%s", machine->options.time_limit_s,
		 vcpu->registers.state == MACHINE_CPU_ASLEEP ? ", asleep without a timer" : "");
	stuck_describe(vcpu, reason, true, machine->crash_text, sizeof(machine->crash_text));
	machine_finish(machine, MACHINE_OUT_OF_TIME);
}

void stuck_sample(struct vcpu *vcpu)
{
	look_for_spin(vcpu);
	if (vcpu->machine->time_is_up)
		end_for_time(vcpu);
}

void stuck_tick(struct machine *machine, unsigned seconds)
{
	unsigned limit_s = machine->options.time_limit_s;

	pthread_mutex_lock(&machine->lock);
	machine->time_is_up = limit_s && seconds >= limit_s;
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		struct vcpu *vcpu = &machine->vcpus[n];
		bool runs = vcpu->activity == VCPU_RUNNING && !vcpu->halted && !vcpu->idle;

		if (runs || machine->time_is_up)
			look_ask(vcpu);
	}
	pthread_mutex_unlock(&machine->lock);
}
