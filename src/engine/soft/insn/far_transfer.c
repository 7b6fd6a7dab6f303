/*
 * Transfers that may change CS and the privilege level: far jumps, calls and returns, through call
 * gates and to tasks as well, IRET, SYSCALL, SYSENTER and their returns, INT n (SDM Vol. 2; Vol. 3A
 * 5.8, 6.12). Left out: limits of code segments outside of these checks, the virtual-mode
 * extensions (CR4.VME).
 */
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
enum { TSS_RSP0 = 4, TSS16_SP0 = 2 };

static void set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
	cpu->state.cpl = (uint8_t)cpl;
	soft_select_view(cpu);
}

static int bad_selector(struct step *t, unsigned vector, uint16_t selector)
{
	return soft_fail(t->fault, vector, true, selector & 0xfffc);
}

static bool is_long(const struct step *t, const struct x86_segment_state *code)
{
	return t->s->efer & EFER_LMA && code->attributes & CODE_LONG;
}

/* Whether rip is one that the segment can run at. */
static bool is_runnable(const struct step *t, const struct x86_segment_state *code, uint64_t rip)
{
	return is_long(t, code) ? soft_canonical(rip) : rip <= code->limit;
}

/* ---- jumps and calls ---- */

/* A code segment that may be entered at the same level, by its name or through a gate. */
static int check_code(struct step *t, const struct x86_segment_state *code, uint16_t selector)
{
	unsigned dpl = code->attributes >> 5 & 3;
	bool conforming = code->attributes & CODE_CONFORMING;

	if (!insn_is_code(code) ||
	    (conforming ? dpl > t->s->cpl : (selector & 3u) > t->s->cpl || dpl != t->s->cpl))
		return bad_selector(t, EXC_GP, selector);
	if (t->s->efer & EFER_LMA &&
	    (code->attributes & (CODE_LONG | CODE_DB)) == (CODE_LONG | CODE_DB))
		return bad_selector(t, EXC_GP, selector);
	return code->attributes & SEGMENT_PRESENT ? 0 : bad_selector(t, EXC_NP, selector);
}

static int push_return(struct step *t, unsigned bytes)
{
	uint64_t old = t->s->gpr[4];

	if (insn_push(t, t->s->segment[X86_CS].selector, bytes) || insn_push(t, t->next, bytes)) {
		t->s->gpr[4] = old;
		return -EFAULT;
	}
	return 0;
}

/* The code segment of a gate; its selector's RPL does not count. */
static int find_gate_code(struct step *t, uint16_t selector, struct x86_segment_state *ret)
{
	uint64_t d[2];
	unsigned dpl;

	if (!(selector & 0xfffc))
		return insn_general_protection(t);
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	*ret = insn_unpack_descriptor(selector, d);
	dpl = ret->attributes >> 5 & 3;
	if (!insn_is_code(ret) || dpl > t->s->cpl)
		return bad_selector(t, EXC_GP, selector);
	if (t->s->efer & EFER_LMA && (ret->attributes & (CODE_LONG | CODE_DB)) != CODE_LONG)
		return bad_selector(t, EXC_GP, selector);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return bad_selector(t, EXC_NP, selector);
	return insn_mark_accessed(t, selector, d);
}

/*
 * A call through a gate to an inner level in long mode: SS becomes null, no parameters are copied
 * (SDM Vol. 3A 5.8.5.1).
 */
static int call_inner_long(struct step *t, const struct x86_segment_state *code, unsigned cpl)
{
	struct x86_state *s = t->s;
	uint64_t rsp;
	uint64_t frame[4] = { t->next, s->segment[X86_CS].selector, s->gpr[4],
			      s->segment[X86_SS].selector };
	uint32_t offset = TSS_RSP0 + 8 * cpl;
	uint8_t old = s->cpl;

	(void)code;
	if (offset + 7 > s->tr.limit)
		return bad_selector(t, EXC_TS, s->tr.selector);
	if (soft_read(t->cpu, s->tr.base + offset, &rsp, 8, ACCESS_SYSTEM | ACCESS_READ, t->fault))
		return -EFAULT;
	if (!soft_all_canonical(rsp - sizeof(frame), sizeof(frame)))
		return soft_fail(t->fault, EXC_SS, true, 0);
	s->cpl = (uint8_t)cpl;
	if (soft_write(t->cpu, rsp - sizeof(frame), frame, sizeof(frame), ACCESS_SYSTEM,
		       t->fault)) {
		s->cpl = old;
		return -EFAULT;
	}
	s->gpr[4] = rsp - sizeof(frame);
	s->segment[X86_SS] =
		(struct x86_segment_state){ .selector = (uint16_t)cpl, .attributes = 0x93 };
	return 0;
}

/* The same in protected mode, with the parameters that the gate counts. */
static int call_inner_protected(struct step *t, unsigned cpl, unsigned bytes, unsigned parameters)
{
	struct x86_state *s = t->s;
	struct x86_state before = *s;
	bool wide = s->tr.attributes & 8;
	unsigned field = wide ? 4 : 2;
	unsigned offset = wide ? TSS_RSP0 + 8 * cpl : TSS16_SP0 + 4 * cpl;
	uint64_t pointer = 0;
	uint64_t selector = 0;
	uint64_t words[31] = { 0 };
	int error;

	if (offset + 2 * field - 1 > s->tr.limit)
		return bad_selector(t, EXC_TS, s->tr.selector);
	if (soft_read(t->cpu, s->tr.base + offset, &pointer, field, ACCESS_SYSTEM | ACCESS_READ,
		      t->fault) ||
	    soft_read(t->cpu, s->tr.base + offset + field, &selector, 2,
		      ACCESS_SYSTEM | ACCESS_READ, t->fault))
		return -EFAULT;
	for (unsigned n = 0; n < parameters; n++)
		if (insn_pop(t, &words[n], bytes)) {
			s->gpr[4] = before.gpr[4];
			return -EFAULT;
		}
	s->cpl = (uint8_t)cpl;
	error = insn_load_segment(t, X86_SS, (uint16_t)selector);
	s->gpr[4] = pointer;
	if (!error)
		error = insn_push(t, before.segment[X86_SS].selector, bytes) ||
			insn_push(t, before.gpr[4], bytes);
	for (unsigned n = parameters; n-- > 0 && !error;)
		error = insn_push(t, words[n], bytes);
	if (!error)
		error = push_return(t, bytes);
	if (error) {
		*s = before;
		return -EFAULT;
	}
	return 0;
}

static int through_call_gate(struct step *t, const uint64_t gate[2], bool call)
{
	enum { PARAMETERS = 0x1f };
	bool wide = (gate[0] >> 40 & SYSTEM_TYPE) == CALL_GATE_32;
	unsigned gate_bytes = wide ? 4 : 2;
	bool long_mode = t->s->efer & EFER_LMA;
	uint16_t selector = (uint16_t)(gate[0] >> 16);
	uint64_t offset = (gate[0] & 0xffff) | (wide ? gate[0] >> 32 & 0xffff0000 : 0) |
			  (long_mode ? gate[1] << 32 : 0);
	struct x86_segment_state code;
	unsigned dpl;
	unsigned cpl = t->s->cpl;
	int error = find_gate_code(t, selector, &code);

	if (error)
		return error;
	dpl = code.attributes >> 5 & 3;
	if (!(code.attributes & CODE_CONFORMING))
		cpl = dpl;
	if (!call && cpl != t->s->cpl)
		return bad_selector(t, EXC_GP, selector);
	if (!is_runnable(t, &code, offset))
		return insn_general_protection(t);
	if (call && cpl < t->s->cpl && long_mode)
		error = call_inner_long(t, &code, cpl);
	else if (call && cpl < t->s->cpl)
		error = call_inner_protected(t, cpl, gate_bytes, gate[0] >> 32 & PARAMETERS);
	else if (call)
		error = push_return(t, long_mode ? 8 : gate_bytes);
	if (error)
		return error;
	code.selector = (uint16_t)((selector & 0xfffc) | cpl);
	insn_set_code(t->cpu, &code);
	set_cpl(t->cpu, cpl);
	t->next = offset;
	return 0;
}

/* What a system descriptor stands for: a gate or a task. */
static int to_system(struct step *t, uint16_t selector, uint64_t d[2], bool call)
{
	unsigned type = d[0] >> 40 & SYSTEM_TYPE;
	unsigned dpl = d[0] >> 45 & 3;
	bool long_mode = t->s->efer & EFER_LMA;
	bool is_gate = type == CALL_GATE_32 || (!long_mode && type == CALL_GATE_16);

	if (dpl < t->s->cpl || dpl < (selector & 3u))
		return bad_selector(t, EXC_GP, selector);
	if (is_gate && long_mode && insn_read_descriptor(t, selector, d, true))
		return -EFAULT;
	if (is_gate && long_mode && d[1] >> 40 & SYSTEM_TYPE)
		return bad_selector(t, EXC_GP, selector);
	if (!is_gate && (long_mode || (type != TASK_GATE && type != TSS_16 && type != TSS_32)))
		return bad_selector(t, EXC_GP, selector);
	if (!(d[0] >> 47 & 1))
		return bad_selector(t, EXC_NP, selector);
	if (is_gate)
		return through_call_gate(t, d, call);
	t->s->rip = t->next;
	if (insn_switch_task(t, type == TASK_GATE ? (uint16_t)(d[0] >> 16) : selector,
			     call ? TASK_BY_CALL : TASK_BY_JMP, soft_rflags(t->cpu), 0))
		return -EFAULT;
	t->next = t->s->rip;
	return 0;
}

static int far_transfer(struct step *t, uint16_t selector, uint64_t offset, bool call,
			unsigned bytes)
{
	struct x86_state *s = t->s;
	struct x86_segment_state code = s->segment[X86_CS];
	uint64_t d[2];

	if (insn_is_real(s)) {
		if (call && push_return(t, bytes))
			return -EFAULT;
		code.selector = selector;
		code.base = (uint64_t)selector << 4;
		insn_set_code(t->cpu, &code);
		t->next = offset;
		return 0;
	}
	if (!(selector & 0xfffc))
		return insn_general_protection(t);
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	code = insn_unpack_descriptor((uint16_t)((selector & 0xfffc) | s->cpl), d);
	if (!(code.attributes & SEGMENT_NOT_SYSTEM))
		return to_system(t, selector, d, call);
	if (check_code(t, &code, selector))
		return -EFAULT;
	if (!is_runnable(t, &code, offset))
		return insn_general_protection(t);
	if ((call && push_return(t, bytes)) || insn_mark_accessed(t, selector, d))
		return -EFAULT;
	insn_set_code(t->cpu, &code);
	t->next = offset;
	return 0;
}

int insn_far_direct(struct step *t, bool call)
{
	return far_transfer(t, (uint16_t)t->i->disp, t->i->imm, call, t->i->operand_bytes);
}

/* FF /3 and /5: the operand is an offset and a selector. */
int insn_far_indirect(struct step *t, bool call)
{
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t offset = 0;
	uint64_t selector = 0;

	if (!x86_insn_has_memory(t->i))
		return insn_undefined(t);
	if (soft_read(t->cpu, insn_address(t), &offset, bytes, ACCESS_READ, t->fault) ||
	    soft_read(t->cpu, insn_address(t) + bytes, &selector, 2, ACCESS_READ, t->fault))
		return -EFAULT;
	return far_transfer(t, (uint16_t)selector, offset, call, bytes);
}

/* ---- returns ---- */

/* The code segment that a far return or IRET goes back to: its RPL is the level. */
static int find_return_code(struct step *t, uint16_t selector, uint64_t rip,
			    struct x86_segment_state *ret)
{
	unsigned rpl = selector & 3;
	unsigned dpl;
	uint64_t d[2];

	if (!(selector & 0xfffc))
		return insn_general_protection(t);
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	*ret = insn_unpack_descriptor(selector, d);
	dpl = ret->attributes >> 5 & 3;
	if (!insn_is_code(ret) || rpl < t->s->cpl ||
	    (ret->attributes & CODE_CONFORMING ? dpl > rpl : dpl != rpl))
		return bad_selector(t, EXC_GP, selector);
	if (t->s->efer & EFER_LMA &&
	    (ret->attributes & (CODE_LONG | CODE_DB)) == (CODE_LONG | CODE_DB))
		return bad_selector(t, EXC_GP, selector);
	if (!(ret->attributes & SEGMENT_PRESENT))
		return bad_selector(t, EXC_NP, selector);
	if (!is_runnable(t, ret, rip))
		return insn_general_protection(t);
	return insn_mark_accessed(t, selector, d);
}

static int find_return_stack(struct step *t, uint16_t selector,
			     const struct x86_segment_state *code, struct x86_segment_state *ret)
{
	unsigned cpl = code->selector & 3;
	unsigned dpl;
	uint64_t d[2];

	if (!(selector & 0xfffc)) {
		*ret = (struct x86_segment_state){ .selector = selector, .attributes = 0x93 };
		return is_long(t, code) && cpl != 3 && (selector & 3u) == cpl
			       ? 0
			       : insn_general_protection(t);
	}
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	*ret = insn_unpack_descriptor(selector, d);
	dpl = ret->attributes >> 5 & 3;
	if ((selector & 3u) != cpl || dpl != cpl || !insn_is_writable(ret))
		return bad_selector(t, EXC_GP, selector);
	return ret->attributes & SEGMENT_PRESENT ? insn_mark_accessed(t, selector, d)
						 : bad_selector(t, EXC_SS, selector);
}

/* What the outer level may not use is taken from it. */
static void drop_inner_segments(struct step *t)
{
	static const uint8_t data[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	for (unsigned n = 0; n < sizeof(data); n++) {
		struct x86_segment_state *segment = &t->s->segment[data[n]];
		bool conforming = insn_is_code(segment) && segment->attributes & CODE_CONFORMING;

		if (!(segment->selector & 0xfffc)) { /* its RPL goes, too */
			segment->selector = 0;
		} else if (!conforming && (segment->attributes >> 5 & 3) < t->s->cpl) {
			segment->selector = 0;
			segment->attributes = 0;
			if (data[n] != X86_FS && data[n] != X86_GS)
				segment->base = 0;
		}
	}
}

/* The frame's stack, if it has one, and the level of code. */
static void go_to_outer(struct step *t, const struct x86_segment_state *code,
			const struct x86_segment_state *stack, uint64_t rsp)
{
	struct x86_state *s = t->s;
	bool is_outer = (code->selector & 3u) > s->cpl;
	uint64_t mask = stack->attributes & CODE_DB ? 0xffffffff : 0xffff;

	s->segment[X86_SS] = *stack;
	if (is_long(t, code) || x86_code_bits(s) == 64)
		s->gpr[4] = is_long(t, code) ? rsp : (uint32_t)rsp;
	else
		s->gpr[4] = (s->gpr[4] & ~mask) | (rsp & mask);
	set_cpl(t->cpu, code->selector & 3);
	if (is_outer)
		drop_inner_segments(t);
}

static int return_real(struct step *t, uint64_t rip, uint16_t selector)
{
	struct x86_segment_state code = t->s->segment[X86_CS];

	code.selector = selector;
	code.base = (uint64_t)selector << 4;
	insn_set_code(t->cpu, &code);
	t->next = rip;
	return 0;
}

static int far_return(struct step *t, unsigned bytes)
{
	enum { RETF_POPPING = 0xca };
	struct x86_segment_state code, stack;
	uint64_t rip, cs, rsp, ss;
	uint64_t extra = t->i->opcode == RETF_POPPING ? t->i->imm : 0;

	if (insn_pop(t, &rip, bytes) || insn_pop(t, &cs, bytes))
		return -EFAULT;
	insn_move_stack(t, extra);
	if (insn_is_real(t->s))
		return return_real(t, rip, (uint16_t)cs);
	if (find_return_code(t, (uint16_t)cs, rip, &code))
		return -EFAULT;
	if ((cs & 3) > t->s->cpl) {
		if (insn_pop(t, &rsp, bytes) || insn_pop(t, &ss, bytes) ||
		    find_return_stack(t, (uint16_t)ss, &code, &stack))
			return -EFAULT;
		go_to_outer(t, &code, &stack, rsp + extra);
	}
	insn_set_code(t->cpu, &code);
	t->next = rip;
	return 0;
}

int insn_far_return(struct step *t)
{
	uint64_t old = t->s->gpr[4];
	int error = far_return(t, t->i->rex_w ? 8 : t->i->operand_bytes);

	if (error)
		t->s->gpr[4] = old;
	return error;
}

/*
 * RF holds a breakpoint back at the next instruction; where none is set nothing would ever clear
 * it.
 */
static void set_returned_flags(struct step *t, uint64_t flags, uint64_t keep)
{
	if (!(t->cpu->pending & PENDING_BREAKPOINTS))
		flags &= ~(uint64_t)FLAG_RF;
	soft_set_rflags(t->cpu, (flags & ~keep) | (soft_rflags(t->cpu) & keep));
}

/* The rest of the frame: the stack, then the data segments. */
static int iret_to_virtual(struct step *t, uint64_t rip, uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { X86_SS, X86_ES, X86_DS, X86_FS, X86_GS };
	enum { USER = 3 };
	struct x86_state *s = t->s;
	struct x86_segment_state code = insn_virtual_segment(cs);
	uint64_t rsp, selectors[sizeof(order)];

	if (insn_pop(t, &rsp, 4))
		return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++)
		if (insn_pop(t, &selectors[n], 4))
			return -EFAULT;
	for (unsigned n = 0; n < sizeof(order); n++)
		s->segment[order[n]] = insn_virtual_segment((uint16_t)selectors[n]);
	set_returned_flags(t, flags, 0);
	s->gpr[4] = rsp;
	insn_set_code(t->cpu, &code);
	set_cpl(t->cpu, USER);
	t->next = (uint16_t)rip;
	return 0;
}

/* IRET of a 64-bit kernel, whose stack is at hand: all five words at once. False: not so. */
static bool pop_long_frame(struct step *t, unsigned bytes, uint64_t frame[5])
{
	struct x86_state *s = t->s;

	if (!t->cpu->engine->takes_shortcuts || bytes != sizeof(*frame) || s->cpl ||
	    x86_code_bits(s) != 64 || !soft_read_words(t->cpu, s->gpr[4], frame, 5))
		return false;
	s->gpr[4] += 5 * sizeof(*frame);
	return true;
}

static int iret_long(struct step *t, const uint64_t frame[5])
{
	struct x86_segment_state code, stack;
	uint16_t cs = (uint16_t)frame[1];

	if (find_return_code(t, cs, frame[0], &code) ||
	    find_return_stack(t, (uint16_t)frame[4], &code, &stack))
		return -EFAULT;
	set_returned_flags(t, frame[2], FLAG_VM);
	go_to_outer(t, &code, &stack, frame[3]);
	insn_set_code(t->cpu, &code);
	soft_select_view(t->cpu);
	t->next = frame[0];
	return 0;
}

static int iret(struct step *t, unsigned bytes)
{
	struct x86_state *s = t->s;
	uint64_t frame[5];
	struct x86_segment_state code;
	struct x86_segment_state stack = s->segment[X86_SS];
	uint64_t rip, cs, flags;
	uint64_t rsp = 0;
	uint64_t ss = 0;
	uint64_t keep = FLAG_VM | (bytes == 2 ? ~0xffffull : 0);
	bool has_stack;

	if (pop_long_frame(t, bytes, frame))
		return iret_long(t, frame);
	if (insn_pop(t, &rip, bytes) || insn_pop(t, &cs, bytes) || insn_pop(t, &flags, bytes))
		return -EFAULT;
	if (insn_is_virtual(s) && (s->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(t);
	if (insn_is_real(s)) {
		set_returned_flags(t, flags, keep | (insn_is_virtual(s) ? FLAG_IOPL : 0));
		return return_real(t, rip, (uint16_t)cs);
	}
	if (flags & FLAG_VM && !s->cpl && bytes == 4 && !(s->efer & EFER_LMA))
		return iret_to_virtual(t, rip, (uint16_t)cs, flags);
	if (s->cpl)
		keep |= FLAG_IOPL | (s->cpl > (s->rflags >> 12 & 3) ? FLAG_IF : 0);
	has_stack = x86_code_bits(s) == 64 || (cs & 3) > s->cpl;
	if (has_stack && (insn_pop(t, &rsp, bytes) || insn_pop(t, &ss, bytes)))
		return -EFAULT;
	if (find_return_code(t, (uint16_t)cs, rip, &code) ||
	    (has_stack && find_return_stack(t, (uint16_t)ss, &code, &stack)))
		return -EFAULT;
	set_returned_flags(t, flags, keep);
	if (has_stack)
		go_to_outer(t, &code, &stack, rsp);
	insn_set_code(t->cpu, &code);
	soft_select_view(t->cpu);
	t->next = rip;
	return 0;
}

/* Back to the task that this one was called from. */
static int return_from_task(struct step *t)
{
	uint64_t link = 0;

	if (t->s->efer & EFER_LMA)
		return insn_general_protection(t);
	if (soft_read(t->cpu, t->s->tr.base, &link, 2, ACCESS_SYSTEM | ACCESS_READ, t->fault))
		return -EFAULT;
	t->s->rip = t->next;
	if (insn_switch_task(t, (uint16_t)link, TASK_BY_IRET, soft_rflags(t->cpu), 0))
		return -EFAULT;
	t->next = t->s->rip;
	return 0;
}

int insn_iret(struct step *t)
{
	struct soft_cpu *cpu = t->cpu;
	uint64_t old = t->s->gpr[4];
	int error;

	if (cpu->nmi_blocked && cpu->nmi_pending > 1)
		__atomic_store_n(
			&cpu->nmi_pending, 1,
			__ATOMIC_SEQ_CST); /* those that came while one was handled are one */
	cpu->nmi_blocked = false; /* also where IRET faults (SDM Vol. 3A 6.7.1) */
	if (cpu->nmi_pending)
		soft_kick(cpu, KICK_EVENT);
	if (!insn_is_real(t->s) && t->s->rflags & FLAG_NT)
		return return_from_task(t);
	error = iret(t, t->i->rex_w ? 8 : t->i->operand_bytes);
	if (error)
		t->s->gpr[4] = old;
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

int insn_syscall(struct step *t)
{
	struct x86_state *s = t->s;

	/*
	 * Intel: in 64-bit code only (SDM Vol. 2, SYSCALL); AMD's goes to CSTAR from compatibility
	 * mode (APM Vol. 2, 6.1.1)
	 */
	if (!(s->efer & EFER_SCE) || (insn_is_vendor(t, CPU_INTEL) && x86_code_bits(s) != 64))
		return insn_undefined(t);
	s->gpr[1] = t->next;
	s->gpr[11] = soft_rflags(t->cpu) & ~(uint64_t)FLAG_RF;
	t->next = x86_code_bits(s) == 64 ? s->lstar : s->cstar;
	soft_set_code_segment(s, (uint16_t)(s->star >> 32 & 0xfffc), 0xa09b);
	s->segment[X86_SS] =
		(struct x86_segment_state){ .selector = (uint16_t)((s->star >> 32 & 0xfffc) + 8),
					    .attributes = 0xc093,
					    .limit = ~0u };
	soft_set_rflags(t->cpu, s->gpr[11] & ~s->sfmask);
	set_cpl(t->cpu, 0);
	step_by_new_flags(t->cpu);
	return 0;
}

int insn_sysret(struct step *t)
{
	struct x86_state *s = t->s;
	uint16_t base = (uint16_t)(s->star >> 48);

	if (!(s->efer & EFER_SCE))
		return insn_undefined(t);
	if (s->cpl || (t->i->rex_w && !soft_canonical(s->gpr[1])))
		return insn_general_protection(t);
	t->next = t->i->rex_w ? s->gpr[1] : (uint32_t)s->gpr[1];
	soft_set_rflags(t->cpu, (s->gpr[11] & 0x3c7fd7) | 2);
	soft_set_code_segment(s, (uint16_t)((base + (t->i->rex_w ? 16 : 0)) | 3),
			      t->i->rex_w ? 0xa0fb : 0xc0fb);
	s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((base + 8) | 3),
							 .attributes = 0xc0f3,
							 .limit = ~0u };
	set_cpl(t->cpu, 3);
	step_by_new_flags(t->cpu);
	return 0;
}

static void set_flat(struct x86_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct x86_segment_state){ .selector = selector,
					       .attributes = attributes,
					       .limit = ~0u };
}

/* SDM Vol. 2: in long mode to 64-bit code, from wherever it is executed. */
int insn_sysenter(struct step *t)
{
	enum { CODE_64 = 0xa09b, CODE_32 = 0xc09b, DATA = 0xc093 };
	struct x86_state *s = t->s;
	bool long_mode = s->efer & EFER_LMA;
	struct x86_segment_state code;

	if (long_mode && insn_is_vendor(t, CPU_AMD)) /* APM Vol. 3, SYSENTER: in legacy mode only */
		return insn_undefined(t);
	if (!(s->cr0 & CR0_PE) || !(s->sysenter_cs & 0xfffc))
		return insn_general_protection(t);
	soft_set_rflags(t->cpu, soft_rflags(t->cpu) & ~(uint64_t)(FLAG_VM | FLAG_IF));
	set_flat(&code, s->sysenter_cs & 0xfffc, long_mode ? CODE_64 : CODE_32);
	set_flat(&s->segment[X86_SS], (uint16_t)((s->sysenter_cs & 0xfffc) + 8), DATA);
	insn_set_code(t->cpu, &code);
	s->gpr[4] = long_mode ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
	t->next = long_mode ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
	set_cpl(t->cpu, 0);
	return 0;
}

int insn_sysexit(struct step *t)
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
	struct x86_state *s = t->s;
	bool wide = t->i->rex_w;
	uint64_t rip = wide ? s->gpr[2] : (uint32_t)s->gpr[2];
	uint64_t rsp = wide ? s->gpr[1] : (uint32_t)s->gpr[1];
	uint16_t selector = (uint16_t)(s->sysenter_cs + (wide ? TO_64 : TO_32));
	struct x86_segment_state code;

	if (s->efer & EFER_LMA && insn_is_vendor(t, CPU_AMD))
		return insn_undefined(t);
	if (s->cpl || !(s->cr0 & CR0_PE) || !(s->sysenter_cs & 0xfffc) || !soft_canonical(rip) ||
	    !soft_canonical(rsp))
		return insn_general_protection(t);
	set_flat(&code, selector | USER, wide ? CODE_64 : CODE_32);
	set_flat(&s->segment[X86_SS], (uint16_t)((selector + STACK) | USER), DATA);
	insn_set_code(t->cpu, &code);
	s->gpr[4] = rsp;
	t->next = rip;
	set_cpl(t->cpu, USER);
	return 0;
}

/*
 * state.rip is the instruction's until the event is delivered: what comes up on the way returns to
 * it.
 */
int insn_software_interrupt(struct step *t, uint8_t vector)
{
	t->cpu->pending &= ~(uint32_t)PENDING_STEP_TRAP; /* TF is clear when it is through */
	soft_deliver_software(t->cpu, vector, t->next);
	t->next = t->s->rip;
	return 0;
}

int insn_interrupt(struct step *t)
{
	if (insn_is_virtual(t->s) && (t->s->rflags & FLAG_IOPL) != FLAG_IOPL)
		return insn_general_protection(t);
	return insn_software_interrupt(t, (uint8_t)t->i->imm);
}

int insn_icebp(struct step *t)
{
	soft_debug_merge(t->cpu);
	soft_deliver_icebp(t->cpu, t->next);
	t->next = t->s->rip;
	return 0;
}
