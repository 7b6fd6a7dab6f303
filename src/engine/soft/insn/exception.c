/*
 * Exceptions and interrupts: delivery through the IDT (SDM Vol. 3A 6.14), faults while delivering, and the flags as the guest
 * sees them. In long mode only: one raised in real or protected mode ends the machine as a triple fault would.
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

uint64_t soft_rflags(struct soft_cpu *cpu)
{
	uint64_t f = cpu->state.rflags & ~(uint64_t)(FLAGS_ARITHMETIC | FLAG_IF);

	f |= (cpu->flags_word >> 8 & 0xd5) | (cpu->flags_word & 1 ? FLAG_OF : 0) | 2;
	return f | (cpu->state.interrupt_flag ? FLAG_IF : 0);
}

void soft_set_rflags(struct soft_cpu *cpu, uint64_t v)
{
	cpu->flags_word = (v & 0xd5) << 8 | (v & FLAG_OF ? 1 : 0);
	cpu->state.interrupt_flag = v & FLAG_IF ? 1 : 0;
	cpu->state.rflags = (v & 0x3f7fd7) | 2;
}

int soft_fail(struct fault *fault, unsigned vector, bool has_code, uint32_t code)
{
	*fault = (struct fault){ .vector = (uint8_t)vector, .has_code = has_code, .code = code };
	return -EFAULT;
}

static int triple_fault(struct soft_cpu *cpu)
{
	cpu->stop = ENGINE_EXIT_SHUTDOWN;
	return -EIO;
}

static int push_frame(struct soft_cpu *cpu, uint64_t rsp, const uint64_t *words, unsigned count, struct fault *fault)
{
	return soft_write(cpu, rsp - 8 * count, words, 8 * count, ACCESS_SYSTEM, fault);
}

static int deliver_long(struct soft_cpu *cpu, unsigned vector, bool software, bool has_code, uint32_t code, struct fault *fault)
{
	struct x86_state *s = &cpu->state;
	uint64_t gate[2], offset, rsp = s->gpr[4], frame[6], descriptor;
	unsigned dpl, ist, target_cpl, n = 0;
	uint32_t error = vector * 8 + 2 + !software;

	if (vector * 16 + 15 > s->idtr.limit)
		return soft_fail(fault, EXC_GP, true, error);
	if (soft_read(cpu, s->idtr.base + vector * 16, gate, 16, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	dpl = gate[0] >> 45 & 3;
	ist = gate[0] >> 32 & 7;
	if ((gate[0] >> 40 & 0x1e) != 0x0e || (software && dpl < s->cpl))
		return soft_fail(fault, EXC_GP, true, error);
	if (!(gate[0] >> 47 & 1))
		return soft_fail(fault, EXC_NP, true, error);
	offset = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
	if (soft_read(cpu, s->gdtr.base + (gate[0] >> 16 & 0xfff8), &descriptor, 8, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	target_cpl = descriptor >> 42 & 1 ? s->cpl : descriptor >> 45 & 3;
	if (ist || target_cpl < s->cpl)
		if (soft_read(cpu, s->tr.base + (ist ? 0x24 + 8 * (ist - 1) : 4 + 8 * target_cpl), &rsp, 8, ACCESS_SYSTEM | ACCESS_READ, fault))
			return -EFAULT;
	rsp &= ~15ull;
	if (has_code)
		frame[n++] = code;
	frame[n++] = s->rip;
	frame[n++] = s->segment[X86_CS].selector;
	frame[n++] = soft_rflags(cpu);
	frame[n++] = s->gpr[4];
	frame[n++] = s->segment[X86_SS].selector;
	{
		uint8_t old = s->cpl;
		uint64_t rflags = s->rflags;

		s->cpl = (uint8_t)target_cpl;
		s->rflags &= ~(uint64_t)FLAG_AC;
		if (push_frame(cpu, rsp, frame, n, fault)) {
			s->cpl = old;
			s->rflags = rflags;
			return -EFAULT;
		}
		if (target_cpl != old)
			s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)target_cpl, .attributes = 0x93 };
	}
	s->gpr[4] = rsp - 8 * n;
	s->rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	s->rflags |= cpu->state.rflags & FLAG_AC;
	if ((gate[0] >> 40 & 1) == 0)
		s->interrupt_flag = 0;
	soft_set_code_segment(s, (uint16_t)((gate[0] >> 16 & 0xfffc) | target_cpl), (uint16_t)(descriptor >> 40));
	soft_set_code_bits(s);
	s->rip = offset;
	s->interrupt_shadow = 0;
	soft_select_view(cpu);
	return 0;
}

static bool contributory(unsigned v) { return v == EXC_DE || (v >= EXC_TS && v <= EXC_GP); }

/* Delivers; a fault while delivering becomes a double fault (SDM table 6-5), one while delivering that ends the machine. */
int soft_deliver(struct soft_cpu *cpu, unsigned vector, bool software, bool has_code, uint32_t code)
{
	struct fault fault;

	cpu->deliveries[vector & 31]++;
	if (!(cpu->state.efer & EFER_LMA))
		return triple_fault(cpu);
	for (;;) {
		bool external = vector >= 32;

		if (!deliver_long(cpu, vector, software, has_code, code, &fault))
			return 0;
		if (vector == EXC_DF)
			return triple_fault(cpu);
		if (fault.vector == EXC_PF)
			cpu->state.cr2 = fault.address;
		if (!external && ((contributory(vector) && contributory(fault.vector)) ||
				  (vector == EXC_PF && (contributory(fault.vector) || fault.vector == EXC_PF)))) {
			fault.vector = EXC_DF;
			fault.has_code = true;
			fault.code = 0;
		}
		vector = fault.vector;
		software = false;
		has_code = fault.has_code;
		code = fault.code;
	}
}
