/*
 * Exceptions and interrupts: delivery through the IDT (SDM Vol. 3A 6.14), faults while delivering, and the flags as the guest
 * sees them. In long mode only: one raised in real or protected mode ends the machine as a triple fault would.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

uint64_t soft_rflags(const struct soft_cpu *cpu)
{
	uint64_t f = cpu->state.rflags & ~(uint64_t)(FLAGS_ARITHMETIC | FLAG_IF);

	f |= (cpu->flags_word >> 8 & 0xd5) | (cpu->flags_word & 1 ? FLAG_OF : 0) | 2;
	return f | (cpu->interrupt_flag ? FLAG_IF : 0);
}

void soft_set_rflags(struct soft_cpu *cpu, uint64_t v)
{
	cpu->flags_word = (v & 0xd5) << 8 | (v & FLAG_OF ? 1 : 0);
	cpu->interrupt_flag = v & FLAG_IF ? 1 : 0;
	cpu->state.rflags = (v & 0x3f7fd7) | 2;
	soft_set_pending(cpu, PENDING_STEP, v & FLAG_TF);
}

int soft_fail(struct fault *fault, unsigned vector, bool has_code, uint32_t code)
{
	*fault = (struct fault){ .vector = (uint8_t)vector, .has_code = has_code, .code = code };
	return -EFAULT;
}

static int triple_fault(struct soft_cpu *cpu)
{
	soft_stop(cpu, ENGINE_EXIT_SHUTDOWN);
	return -EIO;
}

static int push_frame(struct soft_cpu *cpu, uint64_t rsp, const uint64_t *words, unsigned count, struct fault *fault)
{
	return soft_write(cpu, rsp - 8 * count, words, 8 * count, ACCESS_SYSTEM, fault);
}

/* What is delivered: an exception, an interrupt, or INT n. */
struct event { uint8_t vector; bool has_code, software; uint32_t code; };

enum { GATE_IS_TRAP = 1, GATE_TYPE = 0x1e, GATE_INTERRUPT_OR_TRAP = 0x0e, TSS_RSP0 = 4, TSS_IST1 = 0x24 };

static int deliver_long(struct soft_cpu *cpu, const struct event *event, struct fault *fault)
{
	struct x86_state *s = &cpu->state;
	uint64_t gate[2], offset, rsp = s->gpr[4], frame[6], descriptor;
	uint32_t gate_code = event->vector * 8u + 2 + !event->software;
	uint8_t old_cpl = s->cpl;
	unsigned dpl, ist, target_cpl, words = 0;

	if (event->vector * 16u + 15 > s->idtr.limit)
		return soft_fail(fault, EXC_GP, true, gate_code);
	if (soft_read(cpu, s->idtr.base + event->vector * 16u, gate, 16, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	dpl = gate[0] >> 45 & 3;
	ist = gate[0] >> 32 & 7;
	if ((gate[0] >> 40 & GATE_TYPE) != GATE_INTERRUPT_OR_TRAP || (event->software && dpl < s->cpl))
		return soft_fail(fault, EXC_GP, true, gate_code);
	if (!(gate[0] >> 47 & 1))
		return soft_fail(fault, EXC_NP, true, gate_code);
	offset = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
	if (soft_read(cpu, s->gdtr.base + (gate[0] >> 16 & 0xfff8), &descriptor, 8, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	target_cpl = descriptor >> 42 & 1 ? s->cpl : descriptor >> 45 & 3;
	if (ist || target_cpl < s->cpl) {
		uint64_t at = s->tr.base + (ist ? TSS_IST1 + 8 * (ist - 1) : TSS_RSP0 + 8 * target_cpl);

		if (soft_read(cpu, at, &rsp, 8, ACCESS_SYSTEM | ACCESS_READ, fault))
			return -EFAULT;
	}
	rsp &= ~15ull;
	if (event->has_code)
		frame[words++] = event->code;
	frame[words++] = s->rip;
	frame[words++] = s->segment[X86_CS].selector;
	frame[words++] = soft_rflags(cpu);
	frame[words++] = s->gpr[4];
	frame[words++] = s->segment[X86_SS].selector;
	s->cpl = (uint8_t)target_cpl;
	if (push_frame(cpu, rsp, frame, words, fault)) {
		s->cpl = old_cpl;
		return -EFAULT;
	}
	if (target_cpl != old_cpl)
		s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)target_cpl, .attributes = 0x93 };
	s->gpr[4] = rsp - 8 * words;
	/* AC stays: a handler that wants SMAP's protection executes CLAC (SDM Vol. 3A 6.12.1.2, 6.14) */
	soft_set_rflags(cpu, soft_rflags(cpu) & ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM));
	if (!(gate[0] >> 40 & GATE_IS_TRAP))
		cpu->interrupt_flag = 0;
	soft_set_code_segment(s, (uint16_t)((gate[0] >> 16 & 0xfffc) | target_cpl), (uint16_t)(descriptor >> 40));
	s->rip = offset;
	soft_set_shadow(cpu, 0);
	soft_select_view(cpu);
	return 0;
}

static bool is_contributory(unsigned vector) { return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP); }

/* Whether this fault while that event was delivered makes a double fault (SDM table 6-5). */
static bool is_double_fault(const struct event *event, const struct fault *fault)
{
	if (event->vector == EXC_PF)
		return is_contributory(fault->vector) || fault->vector == EXC_PF;
	return is_contributory(event->vector) && is_contributory(fault->vector);
}

/* A fault has come up; what it is on the way of, if anything, is in *event, and what is to be delivered now afterwards. */
static void turn_into_event(struct soft_cpu *cpu, const struct fault *fault, struct event *event, bool nested)
{
	bool is_double = nested && is_double_fault(event, fault);

	if (fault->vector == EXC_PF)
		cpu->state.cr2 = fault->address;
	*event = (struct event){ .vector = fault->vector, .has_code = fault->has_code, .code = fault->code };
	if (is_double)
		*event = (struct event){ .vector = EXC_DF, .has_code = true };
}

static int deliver(struct soft_cpu *cpu, struct event event)
{
	struct fault fault;

	cpu->deliveries[event.vector & 31]++;
	if (!(cpu->state.efer & EFER_LMA))
		return triple_fault(cpu);
	while (deliver_long(cpu, &event, &fault)) {
		if (event.vector == EXC_DF)
			return triple_fault(cpu);
		turn_into_event(cpu, &fault, &event, true);
	}
	return 0;
}

int soft_deliver_fault(struct soft_cpu *cpu, const struct fault *fault)
{
	struct event event;

	turn_into_event(cpu, fault, &event, false);
	return deliver(cpu, event);
}

int soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector)
{
	return deliver(cpu, (struct event){ .vector = vector });
}

int soft_deliver_software(struct soft_cpu *cpu, uint8_t vector)
{
	return deliver(cpu, (struct event){ .vector = vector, .software = true });
}
