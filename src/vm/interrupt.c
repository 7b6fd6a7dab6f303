/*
 * Interrupts to a processor: of devices, of other processors, NMI, INIT and SIPI (SDM Vol. 3A
 * 11.6).
 */
#include "machine_internal.h"

#include <assert.h>

enum { ICR_LOGICAL = 1 << 11, ICR_ASSERT = 1 << 14, ICR_LEVEL = 1 << 15 };
enum { ICR_MODE_SHIFT = 8, ICR_MODE_MASK = 7, ICR_SHORTHAND_SHIFT = 18, ICR_SHORTHAND_MASK = 3 };
enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_STARTUP };
enum { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

void interrupt_notify(struct vcpu *vcpu)
{
	vcpu_wake(vcpu);
	engine_kick(vcpu->cpu);
}

static void deliver_init(struct vcpu *vcpu)
{
	assert(vcpu->cpu);
	vcpu->activity = VCPU_WAITS_FOR_SIPI;
	vcpu->init_pending = true;
	vcpu->start_pending = false;
	engine_stop(vcpu->cpu, ENGINE_EXIT_KICK);
}

static void deliver_startup(struct vcpu *vcpu, uint8_t vector)
{
	if (vcpu->activity != VCPU_WAITS_FOR_SIPI)
		return;
	vcpu->activity = VCPU_RUNNING;
	vcpu->start_pending = true;
	vcpu->sipi_vector = vector;
}

static void deliver(struct vcpu *vcpu, unsigned mode, uint8_t vector, bool level)
{
	switch (mode) {
	case MODE_FIXED: case MODE_LOWEST: apic_raise(&vcpu->apic, vector, level); break;
	case MODE_NMI:
		if (vcpu->activity == VCPU_RUNNING)
			engine_nmi(vcpu->cpu);
		break;
	case MODE_INIT: deliver_init(vcpu); break;
	case MODE_STARTUP: deliver_startup(vcpu, vector); break;
	default: return;
	}
	interrupt_notify(vcpu);
}

static bool is_hit(const struct vcpu *vcpu, const struct vcpu *from, uint32_t low,
		   uint32_t destination)
{
	switch (low >> ICR_SHORTHAND_SHIFT & ICR_SHORTHAND_MASK) {
	case TO_SELF: return vcpu == from;
	case TO_ALL: return true;
	case TO_OTHERS: return vcpu != from;
	default: return apic_is_destination(&vcpu->apic, low & ICR_LOGICAL, destination);
	}
}

void interrupt_send(struct machine *machine, struct vcpu *from, uint32_t low, uint32_t destination)
{
	unsigned mode = low >> ICR_MODE_SHIFT & ICR_MODE_MASK;
	bool level = !from && low & ICR_LEVEL; /* between processors only INIT has levels */

	if (mode == MODE_INIT && low & ICR_LEVEL && !(low & ICR_ASSERT))
		return; /* INIT level de-assert does nothing since the Pentium 4 */
	for (unsigned n = 0; n < machine->options.cpus; n++) {
		struct vcpu *vcpu = &machine->vcpus[n];

		if (!is_hit(vcpu, from, low, destination))
			continue;
		deliver(vcpu, mode, (uint8_t)low, level);
		if (mode == MODE_LOWEST)
			return;
	}
}
