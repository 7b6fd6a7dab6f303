/*
 * A machine that is stuck says so, in one line: why, which processor, where it is, and what the
 * console ended with.
 *
 * All processors halted with interrupts disabled is for good: nothing in a machine raises an NMI
 * but a processor, and only a processor sends INIT. Left out: a processor that spins with
 * interrupts disabled looks like one that works.
 */
#include "machine_internal.h"

#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 400 };

void stuck_console_byte(struct machine *machine, uint8_t byte)
{
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
