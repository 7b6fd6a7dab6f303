/*
 * Exceptions and interrupts: what becomes of a fault while another event is delivered, and the
 * flags as the guest sees them. A page fault comes here as every other (from mmu/walk.c, by
 * soft_deliver_fault()) and gets its CR2 here (turn_into_event()); what is pushed and loaded then
 * is in delivery.c.
 */
#include <assert.h>
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

uint64_t soft_rflags(const struct soft_cpu *cpu)
{
	uint64_t flags = cpu->state.rflags & ~(uint64_t)(FLAGS_ARITHMETIC | FLAG_IF);

	flags |= (cpu->flags_word >> 8 & 0xd5) | (cpu->flags_word & 1 ? FLAG_OF : 0) | 2;
	return flags | (cpu->interrupt_flag ? FLAG_IF : 0);
}

void soft_set_rflags(struct soft_cpu *cpu, uint64_t value)
{
	cpu->flags_word = (value & 0xd5) << 8 | (value & FLAG_OF ? 1 : 0);
	cpu->interrupt_flag = value & FLAG_IF ? 1 : 0;
	cpu->state.rflags = (value & 0x3f7fd7) | 2;
	soft_set_pending(cpu, PENDING_STEP, value & FLAG_TF);
}

enum { EXCEPTION_VECTORS = 32 };

int soft_fail(struct fault *fault, unsigned vector, bool has_code, uint32_t code)
{
	assert(vector < EXCEPTION_VECTORS);
	*fault = (struct fault){ .vector = (uint8_t)vector, .has_code = has_code, .code = code };
	return -EFAULT;
}

static int triple_fault(struct soft_cpu *cpu)
{
	soft_stop(cpu, ENGINE_EXIT_SHUTDOWN);
	return -EIO;
}

static bool is_contributory(unsigned vector)
{
	return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

/* Whether this fault while that event was delivered makes a double fault (SDM table 6-5). */
static bool is_double_fault(const struct event *event, const struct fault *fault)
{
	if (event->vector == EXC_PF)
		return is_contributory(fault->vector) || fault->vector == EXC_PF;
	return is_contributory(event->vector) && is_contributory(fault->vector);
}

/*
 * A fault has come up; what it is on the way of, if anything, is in *event, and what is to be
 * delivered now afterwards.
 */
static void turn_into_event(struct soft_cpu *cpu, const struct fault *fault, struct event *event,
			    bool nested)
{
	bool is_double = nested && event->kind == EVENT_FAULT && is_double_fault(event, fault);

	if (fault->vector == EXC_PF)
		cpu->state.cr2 = fault->address;
	*event = (struct event){ .vector = fault->vector,
				 .has_code = fault->has_code,
				 .code = fault->code };
	if (is_double)
		*event = (struct event){ .vector = EXC_DF, .has_code = true };
	event->return_rip = cpu->state.rip;
}

static int deliver(struct soft_cpu *cpu, struct event event)
{
	struct fault fault;

	cpu->deliveries[event.vector & 31]++;
	while (soft_deliver_event(cpu, &event, &fault)) {
		if (event.kind == EVENT_FAULT && event.vector == EXC_DF)
			return triple_fault(cpu);
		turn_into_event(cpu, &fault, &event, true);
	}
	return 0;
}

int soft_deliver_fault(struct soft_cpu *cpu, const struct fault *fault)
{
	struct event event;

	cpu->fault_vector = fault->vector;
	soft_note_fault(cpu, fault);
	turn_into_event(cpu, fault, &event, false);
	return deliver(cpu, event);
}

int soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector)
{
	return deliver(cpu, (struct event){ .vector = vector,
					    .kind = EVENT_INTERRUPT,
					    .return_rip = cpu->state.rip });
}

int soft_deliver_software(struct soft_cpu *cpu, uint8_t vector, uint64_t return_rip)
{
	return deliver(cpu, (struct event){ .vector = vector,
					    .kind = EVENT_SOFTWARE,
					    .return_rip = return_rip });
}

int soft_deliver_icebp(struct soft_cpu *cpu, uint64_t return_rip)
{
	return deliver(cpu, (struct event){ .vector = EXC_DB,
					    .kind = EVENT_INTERRUPT,
					    .return_rip = return_rip });
}
