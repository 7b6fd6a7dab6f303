/*
 * Transfers that may change CS and the privilege level: far jumps, calls and returns, through call
 * gates and to tasks as well, IRET, SYSCALL, SYSENTER and their returns, INT n (SDM Vol. 2; Vol. 3A
 * 5.8, 6.12). Left out: limits of code segments outside of these checks, the virtual-mode
 * extensions (CR4.VME).
 */
#include <assert.h>
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum {
	CALL_GATE_16 = 4,
	TASK_GATE = 5,
	CALL_GATE_32 = 12,
	TSS_16 = 1,
	TSS_32 = 9,
	TSS_BUSY = 2,
	SYSTEM_TYPE = 0x1f
};
enum { TSS_RSP0 = 4 };

static void set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
	cpu->state.cpl = (uint8_t)cpl;
	soft_select_view(cpu);
}

static int bad_selector(struct step *step, unsigned vector, uint16_t selector)
{
	return soft_fail(step->fault, vector, true, selector & 0xfffc);
}

static bool is_long(const struct step *step, const struct x86_segment_state *code)
{
	return step->state->efer & EFER_LMA && code->attributes & CODE_LONG;
}

/* Whether rip is one that the segment can run at. */
static bool is_runnable(const struct step *step, const struct x86_segment_state *code, uint64_t rip)
{
	return is_long(step, code) ? soft_canonical(rip) : rip <= code->limit;
}

/* ---- jumps and calls ---- */

/* A code segment that may be entered at the same level, by its name or through a gate. */
static int check_code(struct step *step, const struct x86_segment_state *code, uint16_t selector)
{
	unsigned dpl = code->attributes >> 5 & 3;
	bool conforming = code->attributes & CODE_CONFORMING;

	if (!insn_is_code(code) ||
	    (conforming ? dpl > step->state->cpl
			: (selector & 3u) > step->state->cpl || dpl != step->state->cpl))
		return bad_selector(step, EXC_GP, selector);
	if (step->state->efer & EFER_LMA &&
	    (code->attributes & (CODE_LONG | CODE_DB)) == (CODE_LONG | CODE_DB))
		return bad_selector(step, EXC_GP, selector);
	return code->attributes & SEGMENT_PRESENT ? 0 : bad_selector(step, EXC_NP, selector);
}

static int push_return(struct step *step, unsigned bytes)
{
	uint64_t old = step->state->gpr[4];

	if (insn_push(step, step->state->segment[X86_CS].selector, bytes) ||
	    insn_push(step, step->next, bytes)) {
		step->state->gpr[4] = old;
		return -EFAULT;
	}
	return 0;
}

/* What a selector that has to name a segment leads to. */
static int read_segment(struct step *step, uint16_t selector, uint64_t ret_descriptor[2],
			struct x86_segment_state *ret)
{
	if (!(selector & 0xfffc))
		return insn_general_protection(step);
	if (insn_read_descriptor(step, selector, ret_descriptor, false))
		return -EFAULT;
	*ret = insn_unpack_descriptor(selector, ret_descriptor);
	return 0;
}

/* The code segment of a gate; its selector's RPL does not count. */
static int find_gate_code(struct step *step, uint16_t selector, struct x86_segment_state *ret)
{
	uint64_t descriptor[2];
	unsigned dpl;

	if (read_segment(step, selector, descriptor, ret))
		return -EFAULT;
	dpl = ret->attributes >> 5 & 3;
	if (!insn_is_code(ret) || dpl > step->state->cpl)
		return bad_selector(step, EXC_GP, selector);
	if (step->state->efer & EFER_LMA && (ret->attributes & (CODE_LONG | CODE_DB)) != CODE_LONG)
		return bad_selector(step, EXC_GP, selector);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return bad_selector(step, EXC_NP, selector);
	return insn_mark_accessed(step, selector, descriptor);
}

/*
 * A call through a gate to an inner level in long mode: SS becomes null, no parameters are copied
 * (SDM Vol. 3A 5.8.5.1).
 */
static int call_inner_long(struct step *step, const struct x86_segment_state *code, unsigned cpl)
{
	struct x86_state *state = step->state;
	uint64_t rsp;
	uint64_t frame[4] = { step->next, state->segment[X86_CS].selector, state->gpr[4],
			      state->segment[X86_SS].selector };
	uint32_t offset = TSS_RSP0 + 8 * cpl;
	uint8_t old = state->cpl;

	(void)code;
	if (offset + 7 > state->tr.limit)
		return bad_selector(step, EXC_TS, state->tr.selector);
	if (soft_read(step->cpu, state->tr.base + offset, &rsp, 8, ACCESS_SYSTEM | ACCESS_READ,
		      step->fault))
		return -EFAULT;
	if (!soft_all_canonical(rsp - sizeof(frame), sizeof(frame)))
		return soft_fail(step->fault, EXC_SS, true, 0);
	state->cpl = (uint8_t)cpl;
	if (soft_write(step->cpu, rsp - sizeof(frame), frame, sizeof(frame), ACCESS_SYSTEM,
		       step->fault)) {
		state->cpl = old;
		return -EFAULT;
	}
	state->gpr[4] = rsp - sizeof(frame);
	state->segment[X86_SS] =
		(struct x86_segment_state){ .selector = (uint16_t)cpl, .attributes = 0x93 };
	return 0;
}

/* The same in protected mode, with the parameters that the gate counts. */
static int call_inner_protected(struct step *step, unsigned cpl, unsigned bytes,
				unsigned parameters)
{
	struct x86_state *state = step->state;
	struct x86_state before = *state;
	struct x86_segment_state stack;
	uint64_t pointer;
	uint64_t words[31] = { 0 };
	int error;

	if (insn_inner_stack(step, cpl, 0, &stack, &pointer))
		return -EFAULT;
	for (unsigned n = 0; n < parameters; n++)
		if (insn_pop(step, &words[n], bytes)) {
			state->gpr[4] = before.gpr[4];
			return -EFAULT;
		}
	state->cpl = (uint8_t)cpl;
	state->segment[X86_SS] = stack;
	state->gpr[4] = pointer;
	error = insn_push(step, before.segment[X86_SS].selector, bytes) ||
		insn_push(step, before.gpr[4], bytes);
	for (unsigned n = parameters; n-- > 0 && !error;)
		error = insn_push(step, words[n], bytes);
	if (!error)
		error = push_return(step, bytes);
	if (error) {
		*state = before;
		if (step->fault->vector == EXC_SS)
			step->fault->code = stack.selector & 0xfffc;
		return -EFAULT;
	}
	return 0;
}

static int through_call_gate(struct step *step, const uint64_t gate[2], bool call)
{
	enum { PARAMETERS = 0x1f };
	bool wide = (gate[0] >> 40 & SYSTEM_TYPE) == CALL_GATE_32;
	unsigned gate_bytes = wide ? 4 : 2;
	bool long_mode = step->state->efer & EFER_LMA;
	uint16_t selector = (uint16_t)(gate[0] >> 16);
	uint64_t offset = (gate[0] & 0xffff) | (wide ? gate[0] >> 32 & 0xffff0000 : 0) |
			  (long_mode ? gate[1] << 32 : 0);
	struct x86_segment_state code;
	unsigned dpl;
	unsigned cpl = step->state->cpl;
	int error = find_gate_code(step, selector, &code);

	if (error)
		return error;
	dpl = code.attributes >> 5 & 3;
	if (!(code.attributes & CODE_CONFORMING))
		cpl = dpl;
	if (!call && cpl != step->state->cpl)
		return bad_selector(step, EXC_GP, selector);
	if (!is_runnable(step, &code, offset))
		return insn_general_protection(step);
	if (call && cpl < step->state->cpl && long_mode)
		error = call_inner_long(step, &code, cpl);
	else if (call && cpl < step->state->cpl)
		error = call_inner_protected(step, cpl, gate_bytes, gate[0] >> 32 & PARAMETERS);
	else if (call)
		error = push_return(step, long_mode ? 8 : gate_bytes);
	if (error)
		return error;
	code.selector = (uint16_t)((selector & 0xfffc) | cpl);
	insn_set_code(step->cpu, &code);
	set_cpl(step->cpu, cpl);
	step->next = offset;
	return 0;
}

/* What a system descriptor stands for: a gate or a task. */
static int to_system(struct step *step, uint16_t selector, uint64_t descriptor[2], bool call)
{
	unsigned type = descriptor[0] >> 40 & SYSTEM_TYPE;
	unsigned dpl = descriptor[0] >> 45 & 3;
	bool long_mode = step->state->efer & EFER_LMA;
	bool is_gate = type == CALL_GATE_32 || (!long_mode && type == CALL_GATE_16);

	if (dpl < step->state->cpl || dpl < (selector & 3u))
		return bad_selector(step, EXC_GP, selector);
	if (is_gate && long_mode && insn_read_descriptor(step, selector, descriptor, true))
		return -EFAULT;
	if (is_gate && long_mode && descriptor[1] >> 40 & SYSTEM_TYPE)
		return bad_selector(step, EXC_GP, selector);
	if (!is_gate && (long_mode || (type != TASK_GATE && type != TSS_16 && type != TSS_32)))
		return bad_selector(step, EXC_GP, selector);
	if (!(descriptor[0] >> 47 & 1))
		return bad_selector(step, EXC_NP, selector);
	if (is_gate)
		return through_call_gate(step, descriptor, call);
	if (insn_switch_task(step, type == TASK_GATE ? (uint16_t)(descriptor[0] >> 16) : selector,
			     call ? TASK_BY_CALL : TASK_BY_JMP, soft_rflags(step->cpu), 0))
		return -EFAULT;
	step->next = step->state->rip;
	return 0;
}

static int far_transfer(struct step *step, uint16_t selector, uint64_t offset, bool call,
			unsigned bytes)
{
	struct x86_state *state = step->state;
	struct x86_segment_state code = state->segment[X86_CS];
	uint64_t descriptor[2];

	assert(bytes == 2 || bytes == 4 || bytes == 8);
	if (insn_is_real(state)) {
		if (call && push_return(step, bytes))
			return -EFAULT;
		code.selector = selector;
		code.base = (uint64_t)selector << 4;
		insn_set_code(step->cpu, &code);
		step->next = offset;
		return 0;
	}
	if (!(selector & 0xfffc))
		return insn_general_protection(step);
	if (insn_read_descriptor(step, selector, descriptor, false))
		return -EFAULT;
	code = insn_unpack_descriptor((uint16_t)((selector & 0xfffc) | state->cpl), descriptor);
	if (!(code.attributes & SEGMENT_NOT_SYSTEM))
		return to_system(step, selector, descriptor, call);
	if (check_code(step, &code, selector))
		return -EFAULT;
	if (!is_runnable(step, &code, offset))
		return insn_general_protection(step);
	if ((call && push_return(step, bytes)) || insn_mark_accessed(step, selector, descriptor))
		return -EFAULT;
	insn_set_code(step->cpu, &code);
	step->next = offset;
	return 0;
}

int insn_far_direct(struct step *step, bool call)
{
	return far_transfer(step, (uint16_t)step->insn->disp, step->insn->imm, call,
			    step->insn->operand_bytes);
}

/* FF /3 and /5: the operand is an offset and a selector. */
int insn_far_indirect(struct step *step, bool call)
{
	unsigned bytes;
	uint64_t offset;
	uint16_t selector;

	if (insn_get_far_pointer(step, &offset, &selector, &bytes))
		return -EFAULT;
	return far_transfer(step, selector, offset, call, bytes);
}

/* ---- returns ---- */

/* The code segment that a far return or IRET goes back to: its RPL is the level. */
static int find_return_code(struct step *step, uint16_t selector, uint64_t rip,
			    struct x86_segment_state *ret)
{
	unsigned rpl = selector & 3;
	unsigned dpl;
	uint64_t descriptor[2];

	if (read_segment(step, selector, descriptor, ret))
		return -EFAULT;
	dpl = ret->attributes >> 5 & 3;
	if (!insn_is_code(ret) || rpl < step->state->cpl ||
	    (ret->attributes & CODE_CONFORMING ? dpl > rpl : dpl != rpl))
		return bad_selector(step, EXC_GP, selector);
	if (step->state->efer & EFER_LMA &&
	    (ret->attributes & (CODE_LONG | CODE_DB)) == (CODE_LONG | CODE_DB))
		return bad_selector(step, EXC_GP, selector);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return bad_selector(step, EXC_NP, selector);
	if (!is_runnable(step, ret, rip))
		return insn_general_protection(step);
	return insn_mark_accessed(step, selector, descriptor);
}

static int find_return_stack(struct step *step, uint16_t selector,
			     const struct x86_segment_state *code, struct x86_segment_state *ret)
{
	unsigned cpl = code->selector & 3;
	unsigned dpl;
	uint64_t descriptor[2];

	if (!(selector & 0xfffc)) {
		*ret = (struct x86_segment_state){ .selector = selector, .attributes = 0x93 };
		return is_long(step, code) && cpl != 3 && (selector & 3u) == cpl
			       ? 0
			       : insn_general_protection(step);
	}
	if (insn_read_descriptor(step, selector, descriptor, false))
		return -EFAULT;
	*ret = insn_unpack_descriptor(selector, descriptor);
	dpl = ret->attributes >> 5 & 3;
	if ((selector & 3u) != cpl || dpl != cpl || !insn_is_writable(ret))
		return bad_selector(step, EXC_GP, selector);
	return ret->attributes & SEGMENT_PRESENT ? insn_mark_accessed(step, selector, descriptor)
						 : bad_selector(step, EXC_SS, selector);
}

/* What the outer level may not use is taken from it. */
static void drop_inner_segments(struct step *step)
{
	static const uint8_t data[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	for (unsigned n = 0; n < sizeof(data); n++) {
		struct x86_segment_state *segment = &step->state->segment[data[n]];
		bool conforming = insn_is_code(segment) && segment->attributes & CODE_CONFORMING;

		if (!(segment->selector & 0xfffc)) { /* its RPL goes, too */
			segment->selector = 0;
		} else if (!conforming && (segment->attributes >> 5 & 3) < step->state->cpl) {
			segment->selector = 0;
			segment->attributes = 0;
			if (data[n] != X86_FS && data[n] != X86_GS)
				segment->base = 0;
		}
	}
}

/* The frame's stack, if it has one, and the level of code. */
static void go_to_outer(struct step *step, const struct x86_segment_state *code,
			const struct x86_segment_state *stack, uint64_t rsp)
{
	struct x86_state *state = step->state;
	bool is_outer = (code->selector & 3u) > state->cpl;
	uint64_t mask = stack->attributes & CODE_DB ? 0xffffffff : 0xffff;

	state->segment[X86_SS] = *stack;
	if (is_long(step, code) || x86_code_bits(state) == 64)
		state->gpr[4] = is_long(step, code) ? rsp : (uint32_t)rsp;
	else
		state->gpr[4] = (state->gpr[4] & ~mask) | (rsp & mask);
	set_cpl(step->cpu, code->selector & 3);
	if (is_outer)
		drop_inner_segments(step);
}

static int return_real(struct step *step, uint64_t rip, uint16_t selector)
{
	struct x86_segment_state code = step->state->segment[X86_CS];

	code.selector = selector;
	code.base = (uint64_t)selector << 4;
	insn_set_code(step->cpu, &code);
	step->next = rip;
	return 0;
}

static int far_return(struct step *step, unsigned bytes)
{
	enum { RETF_POPPING = 0xca };
	struct x86_segment_state code, stack;
	uint64_t rip, cs, rsp, ss;
	uint64_t extra = step->insn->opcode == RETF_POPPING ? step->insn->imm : 0;

	if (insn_pop(step, &rip, bytes) || insn_pop(step, &cs, bytes))
		return -EFAULT;
	insn_move_stack(step, extra);
	if (insn_is_real(step->state))
		return return_real(step, rip, (uint16_t)cs);
	if (find_return_code(step, (uint16_t)cs, rip, &code))
		return -EFAULT;
	if ((cs & 3) > step->state->cpl) {
		if (insn_pop(step, &rsp, bytes) || insn_pop(step, &ss, bytes) ||
		    find_return_stack(step, (uint16_t)ss, &code, &stack))
			return -EFAULT;
		go_to_outer(step, &code, &stack, rsp + extra);
	}
	insn_set_code(step->cpu, &code);
	step->next = rip;
	return 0;
}

int insn_far_return(struct step *step)
{
	uint64_t old = step->state->gpr[4];
	int error = far_return(step, step->insn->rex_w ? 8 : step->insn->operand_bytes);

	if (error)
		step->state->gpr[4] = old;
	return error;
}

/*
 * RF holds a breakpoint back at the next instruction; where none is set nothing would ever clear
 * it.
 */
static void set_returned_flags(struct step *step, uint64_t flags, uint64_t keep)
{
	if (!(step->cpu->pending & PENDING_BREAKPOINTS))
		flags &= ~(uint64_t)FLAG_RF;
	soft_set_rflags(step->cpu, (flags & ~keep) | (soft_rflags(step->cpu) & keep));
}

/* The rest of the frame: the stack, then the data segments. */
static int iret_to_virtual(struct step *step, uint64_t rip, uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { X86_SS, X86_ES, X86_DS, X86_FS, X86_GS };
	enum { USER = 3 };
	struct x86_state *state = step->state;
	struct x86_segment_state code = insn_virtual_segment(cs);
	uint64_t rsp, selectors[sizeof(order)];

	if (insn_pop(step, &rsp, 4))
		return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++)
		if (insn_pop(step, &selectors[n], 4))
			return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++)
		state->segment[order[n]] = insn_virtual_segment((uint16_t)selectors[n]);
	set_returned_flags(step, flags, 0);
	state->gpr[4] = rsp;
	insn_set_code(step->cpu, &code);
	set_cpl(step->cpu, USER);
	step->next = (uint16_t)rip;
	return 0;
}

/* IRET of a 64-bit kernel, whose stack is at hand: all five words at once. False: not so. */
static bool pop_long_frame(struct step *step, unsigned bytes, uint64_t frame[5])
{
	struct x86_state *state = step->state;

	if (!step->cpu->engine->takes_shortcuts || bytes != sizeof(*frame) || state->cpl ||
	    x86_code_bits(state) != 64 || !soft_read_words(step->cpu, state->gpr[4], frame, 5))
		return false;
	state->gpr[4] += 5 * sizeof(*frame);
	return true;
}

static int iret_long(struct step *step, const uint64_t frame[5])
{
	struct x86_segment_state code, stack;
	uint16_t cs = (uint16_t)frame[1];

	if (find_return_code(step, cs, frame[0], &code) ||
	    find_return_stack(step, (uint16_t)frame[4], &code, &stack))
		return -EFAULT;
	set_returned_flags(step, frame[2], FLAG_VM);
	go_to_outer(step, &code, &stack, frame[3]);
	insn_set_code(step->cpu, &code);
	soft_select_view(step->cpu);
	step->next = frame[0];
	return 0;
}

static int iret(struct step *step, unsigned bytes)
{
	struct x86_state *state = step->state;
	uint64_t frame[5];
	struct x86_segment_state code;
	struct x86_segment_state stack = state->segment[X86_SS];
	uint64_t rip, cs, flags;
	uint64_t rsp = 0;
	uint64_t ss = 0;
	uint64_t keep = FLAG_VM | (bytes == 2 ? ~0xffffull : 0);
	bool has_stack;

	if (pop_long_frame(step, bytes, frame))
		return iret_long(step, frame);
	if (insn_pop(step, &rip, bytes) || insn_pop(step, &cs, bytes) ||
	    insn_pop(step, &flags, bytes))
		return -EFAULT;
	if (insn_is_virtual(state) && (state->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(step);
	if (insn_is_real(state)) {
		set_returned_flags(step, flags, keep | (insn_is_virtual(state) ? FLAG_IOPL : 0));
		return return_real(step, rip, (uint16_t)cs);
	}
	if (flags & FLAG_VM && !state->cpl && bytes == 4 && !(state->efer & EFER_LMA))
		return iret_to_virtual(step, rip, (uint16_t)cs, flags);
	if (state->cpl)
		keep |= FLAG_IOPL | (state->cpl > (state->rflags >> 12 & 3) ? FLAG_IF : 0);
	has_stack = x86_code_bits(state) == 64 || (cs & 3) > state->cpl;
	if (has_stack && (insn_pop(step, &rsp, bytes) || insn_pop(step, &ss, bytes)))
		return -EFAULT;
	if (find_return_code(step, (uint16_t)cs, rip, &code) ||
	    (has_stack && find_return_stack(step, (uint16_t)ss, &code, &stack)))
		return -EFAULT;
	set_returned_flags(step, flags, keep);
	if (has_stack)
		go_to_outer(step, &code, &stack, rsp);
	insn_set_code(step->cpu, &code);
	soft_select_view(step->cpu);
	step->next = rip;
	return 0;
}

/* Back to the task that this one was called from. */
static int return_from_task(struct step *step)
{
	uint64_t link = 0;

	if (step->state->efer & EFER_LMA)
		return insn_general_protection(step);
	if (soft_read(step->cpu, step->state->tr.base, &link, 2, ACCESS_SYSTEM | ACCESS_READ,
		      step->fault))
		return -EFAULT;
	if (insn_switch_task(step, (uint16_t)link, TASK_BY_IRET, soft_rflags(step->cpu), 0))
		return -EFAULT;
	step->next = step->state->rip;
	return 0;
}

int insn_iret(struct step *step)
{
	struct soft_cpu *cpu = step->cpu;
	uint64_t old = step->state->gpr[4];
	int error;

	if (cpu->nmi_blocked && cpu->nmi_pending > 1)
		__atomic_store_n(
			&cpu->nmi_pending, 1,
			__ATOMIC_SEQ_CST); /* those that came while one was handled are one */
	cpu->nmi_blocked = false; /* also where IRET faults (SDM Vol. 3A 6.7.1) */
	if (cpu->nmi_pending)
		soft_kick(cpu, KICK_EVENT);
	if (!insn_is_real(step->state) && step->state->rflags & FLAG_NT)
		return return_from_task(step);
	error = iret(step, step->insn->rex_w ? 8 : step->insn->operand_bytes);
	if (error)
		step->state->gpr[4] = old;
	else if (cpu->fault_waits)
		soft_fill_after_fault(cpu);
	return error;
}

/* ---- system calls ---- */

/* TF counts as SYSCALL and SYSRET leave it, not as they find it. */
static void step_by_new_flags(struct soft_cpu *cpu)
{
	soft_set_pending(cpu, PENDING_STEP_TRAP, cpu->state.rflags & FLAG_TF);
}

int insn_syscall(struct step *step)
{
	struct x86_state *state = step->state;

	/*
	 * Intel: in 64-bit code only (SDM Vol. 2, SYSCALL); AMD's goes to CSTAR from compatibility
	 * mode (APM Vol. 2, 6.1.1)
	 */
	if (!(state->efer & EFER_SCE) ||
	    (insn_is_vendor(step, CPU_INTEL) && x86_code_bits(state) != 64))
		return insn_undefined(step);
	state->gpr[1] = step->next;
	state->gpr[11] = soft_rflags(step->cpu) & ~(uint64_t)FLAG_RF;
	step->next = x86_code_bits(state) == 64 ? state->lstar : state->cstar;
	soft_set_code_segment(state, (uint16_t)(state->star >> 32 & 0xfffc), 0xa09b);
	state->segment[X86_SS] =
		(struct x86_segment_state){ .selector =
						    (uint16_t)((state->star >> 32 & 0xfffc) + 8),
					    .attributes = 0xc093,
					    .limit = ~0u };
	soft_set_rflags(step->cpu, state->gpr[11] & ~state->sfmask);
	set_cpl(step->cpu, 0);
	step_by_new_flags(step->cpu);
	return 0;
}

int insn_sysret(struct step *step)
{
	struct x86_state *state = step->state;
	uint16_t base = (uint16_t)(state->star >> 48);

	if (!(state->efer & EFER_SCE))
		return insn_undefined(step);
	if (state->cpl || (step->insn->rex_w && !soft_canonical(state->gpr[1])))
		return insn_general_protection(step);
	step->next = step->insn->rex_w ? state->gpr[1] : (uint32_t)state->gpr[1];
	soft_set_rflags(step->cpu, (state->gpr[11] & 0x3c7fd7) | 2);
	soft_set_code_segment(state, (uint16_t)((base + (step->insn->rex_w ? 16 : 0)) | 3),
			      step->insn->rex_w ? 0xa0fb : 0xc0fb);
	state->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((base + 8) | 3),
							     .attributes = 0xc0f3,
							     .limit = ~0u };
	set_cpl(step->cpu, 3);
	step_by_new_flags(step->cpu);
	return 0;
}

static void set_flat(struct x86_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct x86_segment_state){ .selector = selector,
					       .attributes = attributes,
					       .limit = ~0u };
}

/* SDM Vol. 2: in long mode to 64-bit code, from wherever it is executed. */
int insn_sysenter(struct step *step)
{
	enum { CODE_64 = 0xa09b, CODE_32 = 0xc09b, DATA = 0xc093 };
	struct x86_state *state = step->state;
	bool long_mode = state->efer & EFER_LMA;
	struct x86_segment_state code;

	if (long_mode &&
	    insn_is_vendor(step, CPU_AMD)) /* APM Vol. 3, SYSENTER: in legacy mode only */
		return insn_undefined(step);
	if (!(state->cr0 & CR0_PE) || !(state->sysenter_cs & 0xfffc))
		return insn_general_protection(step);
	soft_set_rflags(step->cpu, soft_rflags(step->cpu) & ~(uint64_t)(FLAG_VM | FLAG_IF));
	set_flat(&code, state->sysenter_cs & 0xfffc, long_mode ? CODE_64 : CODE_32);
	set_flat(&state->segment[X86_SS], (uint16_t)((state->sysenter_cs & 0xfffc) + 8), DATA);
	insn_set_code(step->cpu, &code);
	state->gpr[4] = long_mode ? state->sysenter_esp : (uint32_t)state->sysenter_esp;
	step->next = long_mode ? state->sysenter_eip : (uint32_t)state->sysenter_eip;
	set_cpl(step->cpu, 0);
	return 0;
}

int insn_sysexit(struct step *step)
{
	enum {
		CODE_64 = 0xa0fb,
		CODE_32 = 0xc0fb,
		DATA = 0xc0f3,
		USER = 3,
		TO_32 = 16,
		TO_64 = 32,
		STACK = 8
	};
	struct x86_state *state = step->state;
	bool wide = step->insn->rex_w;
	uint64_t rip = wide ? state->gpr[2] : (uint32_t)state->gpr[2];
	uint64_t rsp = wide ? state->gpr[1] : (uint32_t)state->gpr[1];
	uint16_t selector = (uint16_t)(state->sysenter_cs + (wide ? TO_64 : TO_32));
	struct x86_segment_state code;

	if (state->efer & EFER_LMA && insn_is_vendor(step, CPU_AMD))
		return insn_undefined(step);
	if (state->cpl || !(state->cr0 & CR0_PE) || !(state->sysenter_cs & 0xfffc) ||
	    !soft_canonical(rip) || !soft_canonical(rsp))
		return insn_general_protection(step);
	set_flat(&code, selector | USER, wide ? CODE_64 : CODE_32);
	set_flat(&state->segment[X86_SS], (uint16_t)((selector + STACK) | USER), DATA);
	insn_set_code(step->cpu, &code);
	state->gpr[4] = rsp;
	step->next = rip;
	set_cpl(step->cpu, USER);
	return 0;
}

/*
 * state.rip is the instruction's until the event is delivered: what comes up on the way returns to
 * it.
 */
int insn_software_interrupt(struct step *step, uint8_t vector)
{
	step->cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP; /* TF is clear when it is through */
	soft_deliver_software(step->cpu, vector, step->next);
	step->next = step->state->rip;
	return 0;
}

int insn_interrupt(struct step *step)
{
	if (insn_is_virtual(step->state) && (step->state->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(step);
	return insn_software_interrupt(step, (uint8_t)step->insn->imm);
}

int insn_icebp(struct step *step)
{
	soft_debug_merge(step->cpu);
	soft_deliver_icebp(step->cpu, step->next);
	step->next = step->state->rip;
	return 0;
}
