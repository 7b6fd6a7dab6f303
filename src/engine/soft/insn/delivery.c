/*
 * Delivery of one event through the IDT: in long mode (SDM Vol. 3A 6.14), in protected mode (6.12),
 * where a gate may name a task, and in real mode (20.1.4). Nothing of the state changes where it
 * fails, but for what a task switch has done before. Which event it is, what becomes of a fault on
 * the way, and CR2 of a page fault are exception.c's, which calls this. Left out: the virtual-mode
 * extensions (CR4.VME).
 */
#include <assert.h>
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

/* The stack that the frame goes to; nothing is in it before it is committed. `code`: of #SS. */
struct stack {
	struct x86_segment_state segment;
	uint64_t mask, pointer;
	unsigned access;
	uint32_t code;
};

static uint64_t flags_to_push(const struct delivery *delivery)
{
	uint64_t flags = soft_rflags(delivery->step.cpu);

	/*
	 * a fault comes back to its instruction, which then meets no breakpoint again (SDM Vol. 3B
	 * 17.3.1.1)
	 */
	return delivery->event->kind == EVENT_FAULT && delivery->event->vector != EXC_DB
		       ? flags | FLAG_RF
		       : flags;
}

static void enter(const struct delivery *delivery, const struct target *target, uint64_t clear)
{
	struct soft_cpu *cpu = delivery->step.cpu;
	struct x86_state *state = &cpu->state;
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
	state->rip = target->offset;
	soft_set_shadow(cpu, 0);
	soft_select_view(cpu);
}

/* The gate's code segment. */
static int find_target(struct delivery *delivery, struct target *target)
{
	struct step *step = &delivery->step;
	uint64_t descriptor[2];
	uint32_t code = (target->selector & 0xfffc) | delivery->ext;
	unsigned dpl;

	if (!(target->selector & 0xfffc))
		return soft_fail(step->fault, EXC_GP, true, delivery->ext);
	if (insn_read_descriptor(step, target->selector, descriptor, false)) {
		step->fault->code |= step->fault->vector == EXC_GP ? delivery->ext : 0;
		return -EFAULT;
	}
	target->code = insn_unpack_descriptor(target->selector, descriptor);
	dpl = target->code.attributes >> 5 & 3;
	if (!insn_is_code(&target->code) || dpl > step->state->cpl)
		return soft_fail(step->fault, EXC_GP, true, code);
	if (insn_is_virtual(step->state) && (dpl || target->code.attributes & CODE_CONFORMING))
		return soft_fail(step->fault, EXC_GP, true, code);
	if (step->state->efer & EFER_LMA &&
	    (target->code.attributes & (CODE_LONG | CODE_DB)) != CODE_LONG)
		return soft_fail(step->fault, EXC_GP, true, code);
	if (!(target->code.attributes & SEGMENT_PRESENT))
		return soft_fail(step->fault, EXC_NP, true, code);
	target->cpl = target->code.attributes & CODE_CONFORMING ? step->state->cpl : dpl;
	target->selector = (uint16_t)((target->selector & 0xfffc) | target->cpl);
	return insn_mark_accessed(step, target->selector, descriptor);
}

static int check_gate(struct delivery *delivery, uint64_t gate, bool is_known)
{
	uint32_t code = delivery->event->vector * 8u + 2 + delivery->ext;

	if (!is_known || (delivery->event->kind == EVENT_SOFTWARE &&
			  (gate >> 45 & 3) < delivery->step.state->cpl))
		return soft_fail(delivery->step.fault, EXC_GP, true, code);
	return gate >> 47 & 1 ? 0 : soft_fail(delivery->step.fault, EXC_NP, true, code);
}

static int read_gate(struct delivery *delivery, uint64_t *gate, unsigned bytes)
{
	const struct x86_state *state = delivery->step.state;
	uint32_t offset = delivery->event->vector * bytes;

	if (offset + bytes - 1 > state->idtr.limit)
		return soft_fail(delivery->step.fault, EXC_GP, true,
				 delivery->event->vector * 8u + 2 + delivery->ext);
	return soft_read(delivery->step.cpu, state->idtr.base + offset, gate, bytes,
			 ACCESS_SYSTEM | ACCESS_READ, delivery->step.fault);
}

/* ---- long mode ---- */

static int read_long_stack(struct delivery *delivery, unsigned ist, unsigned cpl, uint64_t *ret)
{
	const struct x86_state *state = delivery->step.state;
	uint32_t offset = ist ? TSS_IST1 + 8 * (ist - 1) : TSS_RSP0 + 8 * cpl;

	if (offset + 7 > state->tr.limit)
		return soft_fail(delivery->step.fault, EXC_TS, true,
				 (state->tr.selector & 0xfffcu) | delivery->ext);
	if (soft_read(delivery->step.cpu, state->tr.base + offset, ret, 8,
		      ACCESS_SYSTEM | ACCESS_READ, delivery->step.fault))
		return -EFAULT;
	return soft_canonical(*ret) ? 0
				    : soft_fail(delivery->step.fault, EXC_SS, true, delivery->ext);
}

static int deliver_long(struct delivery *delivery)
{
	struct soft_cpu *cpu = delivery->step.cpu;
	struct x86_state *state = delivery->step.state;
	uint64_t gate[2];
	uint64_t rsp = state->gpr[4];
	uint64_t frame[6];
	struct target target;
	uint8_t old_cpl = state->cpl;
	unsigned ist;
	unsigned words = 0;

	if (read_gate(delivery, gate, 16) ||
	    check_gate(delivery, gate[0], (gate[0] >> 40 & GATE_KIND) == GATE_32))
		return -EFAULT;
	target.selector = (uint16_t)(gate[0] >> 16);
	target.offset = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
	target.is_trap = gate[0] >> 40 & GATE_IS_TRAP;
	ist = gate[0] >> 32 & 7;
	if (find_target(delivery, &target))
		return -EFAULT;
	if (!soft_canonical(target.offset))
		return soft_fail(delivery->step.fault, EXC_GP, true, delivery->ext);
	if ((ist || target.cpl < state->cpl) && read_long_stack(delivery, ist, target.cpl, &rsp))
		return -EFAULT;
	rsp &= ~15ull;
	if (delivery->event->has_code)
		frame[words++] = delivery->event->code;
	frame[words++] = delivery->event->return_rip;
	frame[words++] = state->segment[X86_CS].selector;
	frame[words++] = flags_to_push(delivery);
	frame[words++] = state->gpr[4];
	frame[words++] = state->segment[X86_SS].selector;
	if (!soft_all_canonical(rsp - 8 * words, 8 * words))
		return soft_fail(delivery->step.fault, EXC_SS, true, delivery->ext);
	state->cpl = (uint8_t)target.cpl;
	if (soft_write(cpu, rsp - 8 * words, frame, 8 * words, target.cpl == 3 ? 0 : ACCESS_SYSTEM,
		       delivery->step.fault)) {
		state->cpl = old_cpl;
		return -EFAULT;
	}
	if (target.cpl != old_cpl)
		state->segment[X86_SS] =
			(struct x86_segment_state){ .selector = (uint16_t)target.cpl,
						    .attributes = 0x93 };
	state->gpr[4] = rsp - 8 * words;
	enter(delivery, &target, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	return 0;
}

/* ---- protected mode ---- */

static int stack_push(struct delivery *delivery, struct stack *stack, uint64_t value,
		      unsigned bytes)
{
	uint64_t pointer = (stack->pointer - bytes) & stack->mask;
	bool is_usable = insn_is_real(delivery->step.state) || insn_is_writable(&stack->segment);

	if (!is_usable || !soft_segment_holds(&stack->segment, pointer, bytes))
		return soft_fail(delivery->step.fault, EXC_SS, true, stack->code);
	if (soft_write(delivery->step.cpu, (uint32_t)(stack->segment.base + pointer), &value, bytes,
		       stack->access, delivery->step.fault))
		return -EFAULT;
	stack->pointer = pointer;
	return 0;
}

static struct stack stack_in(const struct x86_segment_state *segment, uint64_t pointer,
			     unsigned cpl, uint32_t code)
{
	uint64_t mask = segment->attributes & CODE_DB ? 0xffffffff : 0xffff;

	return (struct stack){ .segment = *segment,
			       .mask = mask,
			       .pointer = pointer & mask,
			       .access = cpl == 3 ? 0 : ACCESS_SYSTEM,
			       .code = code };
}

int insn_inner_stack(struct step *step, unsigned cpl, uint32_t ext, struct x86_segment_state *ret,
		     uint64_t *ret_pointer)
{
	bool wide = step->state->tr.attributes & 8;
	unsigned bytes = wide ? 4 : 2;
	unsigned offset = wide ? TSS_RSP0 + 8 * cpl : TSS16_SP0 + 4 * cpl;
	uint64_t descriptor[2];
	uint64_t selector = 0;
	uint32_t code;

	assert(cpl < 3); /* level 3 is nobody's inner one */
	*ret_pointer = 0;
	if (offset + 2 * bytes - 1 > step->state->tr.limit)
		return soft_fail(step->fault, EXC_TS, true,
				 (step->state->tr.selector & 0xfffcu) | ext);
	if (soft_read(step->cpu, step->state->tr.base + offset, ret_pointer, bytes,
		      ACCESS_SYSTEM | ACCESS_READ, step->fault) ||
	    soft_read(step->cpu, step->state->tr.base + offset + bytes, &selector, 2,
		      ACCESS_SYSTEM | ACCESS_READ, step->fault))
		return -EFAULT;
	code = (selector & 0xfffc) | ext;
	if (!(selector & 0xfffc))
		return soft_fail(step->fault, EXC_TS, true, ext);
	if (insn_read_descriptor(step, (uint16_t)selector, descriptor, false))
		return step->fault->vector == EXC_GP ? soft_fail(step->fault, EXC_TS, true, code)
						  : -EFAULT;
	*ret = insn_unpack_descriptor((uint16_t)selector, descriptor);
	if ((selector & 3) != cpl || (ret->attributes >> 5 & 3) != cpl || !insn_is_writable(ret))
		return soft_fail(step->fault, EXC_TS, true, code);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return soft_fail(step->fault, EXC_SS, true, code);
	return insn_mark_accessed(step, (uint16_t)selector, descriptor);
}

static int push_protected_frame(struct delivery *delivery, struct stack *stack, bool is_inner,
				unsigned bytes)
{
	static const uint8_t virtual[] = { X86_GS, X86_FS, X86_DS, X86_ES };
	const struct x86_state *state = delivery->step.state;

	for (unsigned n = 0; n < sizeof(virtual) && insn_is_virtual(state); n++)
		if (stack_push(delivery, stack, state->segment[virtual[n]].selector, bytes))
			return -EFAULT;
	if (is_inner && (stack_push(delivery, stack, state->segment[X86_SS].selector, bytes) ||
			 stack_push(delivery, stack, state->gpr[4], bytes)))
		return -EFAULT;
	if (stack_push(delivery, stack, flags_to_push(delivery), bytes) ||
	    stack_push(delivery, stack, state->segment[X86_CS].selector, bytes) ||
	    stack_push(delivery, stack, delivery->event->return_rip, bytes))
		return -EFAULT;
	return delivery->event->has_code ? stack_push(delivery, stack, delivery->event->code, bytes)
					 : 0;
}

static int through_gate(struct delivery *delivery, uint64_t gate)
{
	struct x86_state *state = delivery->step.state;
	struct x86_segment_state stack_segment = state->segment[X86_SS];
	uint64_t pointer = state->gpr[4];
	struct target target = { .selector = (uint16_t)(gate >> 16) };
	struct stack stack;
	uint8_t old_cpl = state->cpl;
	bool wide = (gate >> 40 & GATE_KIND) == GATE_32;

	target.offset = (gate & 0xffff) | (wide ? gate >> 32 & 0xffff0000 : 0);
	target.is_trap = gate >> 40 & GATE_IS_TRAP;
	if (find_target(delivery, &target))
		return -EFAULT;
	if (target.cpl < state->cpl &&
	    insn_inner_stack(&delivery->step, target.cpl, delivery->ext, &stack_segment, &pointer))
		return -EFAULT;
	if (target.offset > target.code.limit)
		return soft_fail(delivery->step.fault, EXC_GP, true, delivery->ext);
	stack = stack_in(&stack_segment, pointer, target.cpl,
			 (target.cpl < state->cpl ? stack_segment.selector & 0xfffcu : 0) |
				 delivery->ext);
	state->cpl = (uint8_t)target.cpl;
	if (push_protected_frame(delivery, &stack, target.cpl < old_cpl, wide ? 4 : 2)) {
		state->cpl = old_cpl;
		return -EFAULT;
	}
	if (target.cpl < old_cpl)
		state->gpr[4] = pointer;
	if (insn_is_virtual(state))
		state->segment[X86_ES] = state->segment[X86_DS] = state->segment[X86_FS] =
			state->segment[X86_GS] = (struct x86_segment_state){ 0 };
	state->segment[X86_SS] = stack_segment;
	state->gpr[4] = (state->gpr[4] & ~stack.mask) | stack.pointer;
	enter(delivery, &target, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	return 0;
}

/* The old task goes on behind its instruction; the error code is on the new task's stack. */
static int through_task_gate(struct delivery *delivery, uint64_t gate)
{
	struct step *step = &delivery->step;

	if (insn_switch_task(step, (uint16_t)(gate >> 16), TASK_BY_INTERRUPT,
			     flags_to_push(delivery), delivery->ext))
		return -EFAULT;
	soft_set_shadow(step->cpu, 0);
	if (!delivery->event->has_code)
		return 0;
	return insn_push(step, delivery->event->code, step->state->tr.attributes & 8 ? 4 : 2);
}

static int deliver_protected(struct delivery *delivery)
{
	uint64_t gate = 0;
	unsigned type;

	if (read_gate(delivery, &gate, 8))
		return -EFAULT;
	type = gate >> 40 & GATE_TYPE;
	if (check_gate(delivery, gate,
		       type == TASK_GATE || (type & GATE_KIND) == GATE_16 ||
			       (type & GATE_KIND) == GATE_32))
		return -EFAULT;
	return type == TASK_GATE ? through_task_gate(delivery, gate) : through_gate(delivery, gate);
}

/* ---- real mode ---- */

static int deliver_real(struct delivery *delivery)
{
	struct x86_state *state = delivery->step.state;
	struct stack stack = stack_in(&state->segment[X86_SS], state->gpr[4], 0, 0);
	struct target target = { .code = state->segment[X86_CS] };
	uint64_t entry = 0;
	uint32_t at = delivery->event->vector * REAL_ENTRY_BYTES;

	if (at + REAL_ENTRY_BYTES - 1 > state->idtr.limit)
		return soft_fail(delivery->step.fault, EXC_GP, true, 0);
	if (soft_read(delivery->step.cpu, state->idtr.base + at, &entry, REAL_ENTRY_BYTES,
		      ACCESS_SYSTEM | ACCESS_READ, delivery->step.fault) ||
	    stack_push(delivery, &stack, soft_rflags(delivery->step.cpu), 2) ||
	    stack_push(delivery, &stack, state->segment[X86_CS].selector, 2) ||
	    stack_push(delivery, &stack, delivery->event->return_rip, 2))
		return -EFAULT;
	state->gpr[4] = (state->gpr[4] & ~stack.mask) | stack.pointer;
	target.offset = (uint16_t)entry;
	target.selector = (uint16_t)(entry >> 16);
	target.code.base = (uint64_t)target.selector << 4;
	enter(delivery, &target, FLAG_TF | FLAG_RF | FLAG_AC);
	return 0;
}

int soft_deliver_event(struct soft_cpu *cpu, const struct event *event, struct fault *fault)
{
	struct delivery delivery = { .event = event, .ext = event->kind != EVENT_SOFTWARE };

	assert(event->kind == EVENT_FAULT || !event->has_code);
	delivery.step = (struct step){
		.cpu = cpu, .state = &cpu->state, .next = event->return_rip, .fault = fault
	};
	if (cpu->state.efer & EFER_LMA)
		return deliver_long(&delivery);
	return cpu->state.cr0 & CR0_PE ? deliver_protected(&delivery) : deliver_real(&delivery);
}
