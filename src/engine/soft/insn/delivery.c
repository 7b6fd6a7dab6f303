/*
 * Delivery of one event through the IDT: in long mode (SDM Vol. 3A 6.14), in protected mode (6.12),
 * where a gate may name a task, and in real mode (20.1.4). Nothing of the state changes where it
 * fails, but for what a task switch has done before. Left out: the virtual-mode extensions
 * (CR4.VME).
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum {
	TASK_GATE = 5,
	GATE_16 = 6,
	GATE_32 = 14,
	GATE_IS_TRAP = 1,
	GATE_TYPE = 0x1f,
	GATE_KIND = 0x1e
};
enum { TSS_RSP0 = 4, TSS_IST1 = 0x24, TSS16_SP0 = 2, REAL_ENTRY_BYTES = 4 };

/* ext: 1 in error codes of what was not asked for by an instruction. */
struct delivery { struct step step; const struct event *event; uint32_t ext; };

/* Where to. */
struct target {
	uint16_t selector;
	uint64_t offset;
	unsigned cpl;
	struct x86_segment_state code;
	bool is_trap;
};

/* The stack that the frame goes to; nothing is in it before it is committed. */
struct stack { uint64_t base, mask, pointer; unsigned access; };

static uint64_t flags_to_push(const struct delivery *d)
{
	uint64_t flags = soft_rflags(d->step.cpu);

	/*
	 * a fault comes back to its instruction, which then meets no breakpoint again (SDM Vol. 3B
	 * 17.3.1.1)
	 */
	return d->event->kind == EVENT_FAULT && d->event->vector != EXC_DB ? flags | FLAG_RF
									   : flags;
}

static void enter(const struct delivery *d, const struct target *target, uint64_t clear)
{
	struct soft_cpu *cpu = d->step.cpu;
	struct x86_state *s = &cpu->state;
	struct x86_segment_state code = target->code;

	/*
	 * AC stays: a handler that wants SMAP's protection executes CLAC (SDM Vol. 3A 6.12.1.2,
	 * 6.14)
	 */
	soft_set_rflags(cpu, soft_rflags(cpu) & ~clear);
	if (!target->is_trap)
		cpu->interrupt_flag = 0;
	code.selector = target->selector;
	insn_set_code(cpu, &code);
	s->rip = target->offset;
	soft_set_shadow(cpu, 0);
	soft_select_view(cpu);
}

/* The gate's code segment. */
static int find_target(struct delivery *d, struct target *target)
{
	struct step *t = &d->step;
	uint64_t descriptor[2];
	uint32_t code = (target->selector & 0xfffc) | d->ext;
	unsigned dpl;

	if (!(target->selector & 0xfffc))
		return soft_fail(t->fault, EXC_GP, true, d->ext);
	if (insn_read_descriptor(t, target->selector, descriptor, false)) {
		t->fault->code |= t->fault->vector == EXC_GP ? d->ext : 0;
		return -EFAULT;
	}
	target->code = insn_unpack_descriptor(target->selector, descriptor);
	dpl = target->code.attributes >> 5 & 3;
	if (!insn_is_code(&target->code) || dpl > t->s->cpl)
		return soft_fail(t->fault, EXC_GP, true, code);
	if (insn_is_virtual(t->s) && (dpl || target->code.attributes & CODE_CONFORMING))
		return soft_fail(t->fault, EXC_GP, true, code);
	if (t->s->efer & EFER_LMA && (target->code.attributes & (CODE_LONG | CODE_DB)) != CODE_LONG)
		return soft_fail(t->fault, EXC_GP, true, code);
	if (!(target->code.attributes & SEGMENT_PRESENT))
		return soft_fail(t->fault, EXC_NP, true, code);
	target->cpl = target->code.attributes & CODE_CONFORMING ? t->s->cpl : dpl;
	target->selector = (uint16_t)((target->selector & 0xfffc) | target->cpl);
	return insn_mark_accessed(t, target->selector, descriptor);
}

static int check_gate(struct delivery *d, uint64_t gate, bool is_known)
{
	uint32_t code = d->event->vector * 8u + 2 + d->ext;

	if (!is_known || (d->event->kind == EVENT_SOFTWARE && (gate >> 45 & 3) < d->step.s->cpl))
		return soft_fail(d->step.fault, EXC_GP, true, code);
	return gate >> 47 & 1 ? 0 : soft_fail(d->step.fault, EXC_NP, true, code);
}

static int read_gate(struct delivery *d, uint64_t *gate, unsigned bytes)
{
	const struct x86_state *s = d->step.s;
	uint32_t offset = d->event->vector * bytes;

	if (offset + bytes - 1 > s->idtr.limit)
		return soft_fail(d->step.fault, EXC_GP, true, d->event->vector * 8u + 2 + d->ext);
	return soft_read(d->step.cpu, s->idtr.base + offset, gate, bytes,
			 ACCESS_SYSTEM | ACCESS_READ, d->step.fault);
}

/* ---- long mode ---- */

static int read_long_stack(struct delivery *d, unsigned ist, unsigned cpl, uint64_t *ret)
{
	const struct x86_state *s = d->step.s;
	uint32_t offset = ist ? TSS_IST1 + 8 * (ist - 1) : TSS_RSP0 + 8 * cpl;

	if (offset + 7 > s->tr.limit)
		return soft_fail(d->step.fault, EXC_TS, true, (s->tr.selector & 0xfffcu) | d->ext);
	if (soft_read(d->step.cpu, s->tr.base + offset, ret, 8, ACCESS_SYSTEM | ACCESS_READ,
		      d->step.fault))
		return -EFAULT;
	return soft_canonical(*ret) ? 0 : soft_fail(d->step.fault, EXC_SS, true, d->ext);
}

static int deliver_long(struct delivery *d)
{
	struct soft_cpu *cpu = d->step.cpu;
	struct x86_state *s = d->step.s;
	uint64_t gate[2];
	uint64_t rsp = s->gpr[4];
	uint64_t frame[6];
	struct target target;
	uint8_t old_cpl = s->cpl;
	unsigned ist;
	unsigned words = 0;

	if (read_gate(d, gate, 16) ||
	    check_gate(d, gate[0], (gate[0] >> 40 & GATE_KIND) == GATE_32))
		return -EFAULT;
	target.selector = (uint16_t)(gate[0] >> 16);
	target.offset = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
	target.is_trap = gate[0] >> 40 & GATE_IS_TRAP;
	ist = gate[0] >> 32 & 7;
	if (find_target(d, &target))
		return -EFAULT;
	if (!soft_canonical(target.offset))
		return soft_fail(d->step.fault, EXC_GP, true, d->ext);
	if ((ist || target.cpl < s->cpl) && read_long_stack(d, ist, target.cpl, &rsp))
		return -EFAULT;
	rsp &= ~15ull;
	if (d->event->has_code)
		frame[words++] = d->event->code;
	frame[words++] = d->event->return_rip;
	frame[words++] = s->segment[X86_CS].selector;
	frame[words++] = flags_to_push(d);
	frame[words++] = s->gpr[4];
	frame[words++] = s->segment[X86_SS].selector;
	if (!soft_all_canonical(rsp - 8 * words, 8 * words))
		return soft_fail(d->step.fault, EXC_SS, true, d->ext);
	s->cpl = (uint8_t)target.cpl;
	if (soft_write(cpu, rsp - 8 * words, frame, 8 * words, target.cpl == 3 ? 0 : ACCESS_SYSTEM,
		       d->step.fault)) {
		s->cpl = old_cpl;
		return -EFAULT;
	}
	if (target.cpl != old_cpl)
		s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)target.cpl,
								 .attributes = 0x93 };
	s->gpr[4] = rsp - 8 * words;
	enter(d, &target, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	return 0;
}

/* ---- protected mode ---- */

static int stack_push(struct delivery *d, struct stack *stack, uint64_t value, unsigned bytes)
{
	uint64_t pointer = (stack->pointer - bytes) & stack->mask;

	if (soft_write(d->step.cpu, (uint32_t)(stack->base + pointer), &value, bytes, stack->access,
		       d->step.fault))
		return -EFAULT;
	stack->pointer = pointer;
	return 0;
}

static struct stack stack_in(const struct x86_segment_state *segment, uint64_t pointer,
			     unsigned cpl)
{
	uint64_t mask = segment->attributes & CODE_DB ? 0xffffffff : 0xffff;

	return (struct stack){ segment->base, mask, pointer & mask, cpl == 3 ? 0 : ACCESS_SYSTEM };
}

/* The stack of an inner level, from the TSS (SDM Vol. 3A 6.12.1, 7.2.1). */
static int read_inner_stack(struct delivery *d, unsigned cpl, struct x86_segment_state *ret,
			    uint64_t *ret_pointer)
{
	struct step *t = &d->step;
	bool wide = t->s->tr.attributes & 8;
	unsigned bytes = wide ? 4 : 2;
	unsigned offset = wide ? TSS_RSP0 + 8 * cpl : TSS16_SP0 + 4 * cpl;
	uint64_t descriptor[2];
	uint64_t selector = 0;
	uint32_t code;

	*ret_pointer = 0;
	if (offset + 2 * bytes - 1 > t->s->tr.limit)
		return soft_fail(t->fault, EXC_TS, true, (t->s->tr.selector & 0xfffcu) | d->ext);
	if (soft_read(t->cpu, t->s->tr.base + offset, ret_pointer, bytes,
		      ACCESS_SYSTEM | ACCESS_READ, t->fault) ||
	    soft_read(t->cpu, t->s->tr.base + offset + bytes, &selector, 2,
		      ACCESS_SYSTEM | ACCESS_READ, t->fault))
		return -EFAULT;
	code = (selector & 0xfffc) | d->ext;
	if (!(selector & 0xfffc))
		return soft_fail(t->fault, EXC_TS, true, d->ext);
	if (insn_read_descriptor(t, (uint16_t)selector, descriptor, false))
		return t->fault->vector == EXC_GP ? soft_fail(t->fault, EXC_TS, true, code)
						  : -EFAULT;
	*ret = insn_unpack_descriptor((uint16_t)selector, descriptor);
	if ((selector & 3) != cpl || (ret->attributes >> 5 & 3) != cpl || !insn_is_writable(ret))
		return soft_fail(t->fault, EXC_TS, true, code);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return soft_fail(t->fault, EXC_SS, true, code);
	return insn_mark_accessed(t, (uint16_t)selector, descriptor);
}

static int push_protected_frame(struct delivery *d, struct stack *stack, bool is_inner,
				unsigned bytes)
{
	static const uint8_t virtual[] = { X86_GS, X86_FS, X86_DS, X86_ES };
	const struct x86_state *s = d->step.s;

	for (unsigned n = 0; n < sizeof(virtual) && insn_is_virtual(s); n++)
		if (stack_push(d, stack, s->segment[virtual[n]].selector, bytes))
			return -EFAULT;
	if (is_inner && (stack_push(d, stack, s->segment[X86_SS].selector, bytes) ||
			 stack_push(d, stack, s->gpr[4], bytes)))
		return -EFAULT;
	if (stack_push(d, stack, flags_to_push(d), bytes) ||
	    stack_push(d, stack, s->segment[X86_CS].selector, bytes) ||
	    stack_push(d, stack, d->event->return_rip, bytes))
		return -EFAULT;
	return d->event->has_code ? stack_push(d, stack, d->event->code, bytes) : 0;
}

static int through_gate(struct delivery *d, uint64_t gate)
{
	struct x86_state *s = d->step.s;
	struct x86_segment_state stack_segment = s->segment[X86_SS];
	uint64_t pointer = s->gpr[4];
	struct target target = { .selector = (uint16_t)(gate >> 16) };
	struct stack stack;
	uint8_t old_cpl = s->cpl;
	bool wide = (gate >> 40 & GATE_KIND) == GATE_32;

	target.offset = (gate & 0xffff) | (wide ? gate >> 32 & 0xffff0000 : 0);
	target.is_trap = gate >> 40 & GATE_IS_TRAP;
	if (find_target(d, &target))
		return -EFAULT;
	if (target.cpl < s->cpl && read_inner_stack(d, target.cpl, &stack_segment, &pointer))
		return -EFAULT;
	stack = stack_in(&stack_segment, pointer, target.cpl);
	s->cpl = (uint8_t)target.cpl;
	if (push_protected_frame(d, &stack, target.cpl < old_cpl, wide ? 4 : 2)) {
		s->cpl = old_cpl;
		return -EFAULT;
	}
	if (target.cpl < old_cpl)
		s->gpr[4] = pointer;
	if (insn_is_virtual(s))
		s->segment[X86_ES] = s->segment[X86_DS] = s->segment[X86_FS] = s->segment[X86_GS] =
			(struct x86_segment_state){ 0 };
	s->segment[X86_SS] = stack_segment;
	s->gpr[4] = (s->gpr[4] & ~stack.mask) | stack.pointer;
	enter(d, &target, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	return 0;
}

/* The old task goes on behind its instruction; the error code is on the new task's stack. */
static int through_task_gate(struct delivery *d, uint64_t gate)
{
	struct step *t = &d->step;

	t->s->rip = d->event->return_rip;
	if (insn_switch_task(t, (uint16_t)(gate >> 16), TASK_BY_INTERRUPT, flags_to_push(d),
			     d->ext))
		return -EFAULT;
	soft_set_shadow(t->cpu, 0);
	if (!d->event->has_code)
		return 0;
	return insn_push(t, d->event->code, t->s->tr.attributes & 8 ? 4 : 2);
}

static int deliver_protected(struct delivery *d)
{
	uint64_t gate = 0;
	unsigned type;

	if (read_gate(d, &gate, 8))
		return -EFAULT;
	type = gate >> 40 & GATE_TYPE;
	if (check_gate(d, gate,
		       type == TASK_GATE || (type & GATE_KIND) == GATE_16 ||
			       (type & GATE_KIND) == GATE_32))
		return -EFAULT;
	return type == TASK_GATE ? through_task_gate(d, gate) : through_gate(d, gate);
}

/* ---- real mode ---- */

static int deliver_real(struct delivery *d)
{
	struct x86_state *s = d->step.s;
	struct stack stack = stack_in(&s->segment[X86_SS], s->gpr[4], 0);
	struct target target = { .code = s->segment[X86_CS] };
	uint64_t entry = 0;
	uint32_t at = d->event->vector * REAL_ENTRY_BYTES;

	if (at + REAL_ENTRY_BYTES - 1 > s->idtr.limit)
		return soft_fail(d->step.fault, EXC_GP, true, 0);
	if (soft_read(d->step.cpu, s->idtr.base + at, &entry, REAL_ENTRY_BYTES,
		      ACCESS_SYSTEM | ACCESS_READ, d->step.fault) ||
	    stack_push(d, &stack, soft_rflags(d->step.cpu), 2) ||
	    stack_push(d, &stack, s->segment[X86_CS].selector, 2) ||
	    stack_push(d, &stack, d->event->return_rip, 2))
		return -EFAULT;
	s->gpr[4] = (s->gpr[4] & ~stack.mask) | stack.pointer;
	target.offset = (uint16_t)entry;
	target.selector = (uint16_t)(entry >> 16);
	target.code.base = (uint64_t)target.selector << 4;
	enter(d, &target, FLAG_TF | FLAG_RF | FLAG_AC);
	return 0;
}

int soft_deliver_event(struct soft_cpu *cpu, const struct event *event, struct fault *fault)
{
	struct delivery d = { .event = event, .ext = event->kind != EVENT_SOFTWARE };

	d.step = (struct step){
		.cpu = cpu, .s = &cpu->state, .next = event->return_rip, .fault = fault
	};
	if (cpu->state.efer & EFER_LMA)
		return deliver_long(&d);
	return cpu->state.cr0 & CR0_PE ? deliver_protected(&d) : deliver_real(&d);
}
