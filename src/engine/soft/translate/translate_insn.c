/*
 * Which way of translating an instruction takes: by its class in the instruction table
 * (x86/decode_internal.h).
 */
#include "translate_internal.h"

/* 64-bit code, no 66 prefix: operands of the stack have 8 bytes. */
static bool is_long_stack(const struct translation *t)
{
	return t->code_bits == 64 && !t->at->insn.prefix66;
}

static void translate_call(struct translation *t, uint64_t target)
{
	translate_push_return(t);
	translate_exit_direct(t, target);
}

/* Jumps and the stack; false: C does it. */
static bool translate_control(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint64_t target = translate_jump_target(t, t->at);
	bool long_mode = t->code_bits == 64;

	switch (i->encoding.class) {
	case X86_CLASS_JCC: translate_side_exit(t, i->opcode & 15, target); return true;
	case X86_CLASS_JMP: translate_exit_direct(t, target); return true;
	case X86_CLASS_LOOP:
		if (i->address_bytes != 2)
			translate_counted_jump(t);
		return i->address_bytes != 2;
	case X86_CLASS_CALL:
		if (long_mode)
			translate_call(t, target);
		return long_mode;
	case X86_CLASS_RET:
		if (long_mode)
			translate_return_near(t, (unsigned)i->imm);
		return long_mode;
	case X86_CLASS_JMP_INDIRECT:
	case X86_CLASS_CALL_INDIRECT:
	case X86_CLASS_PUSH_RM: return translate_indirect(t);
	default: break;
	}
	if (!is_long_stack(t))
		return false;
	switch (i->encoding.class) {
	case X86_CLASS_PUSH: translate_push_register(t, i->rm); return true;
	case X86_CLASS_POP: translate_pop_register(t, i->rm); return true;
	case X86_CLASS_PUSH_IMMEDIATE: translate_push_constant(t, i->imm); return true;
	case X86_CLASS_LEAVE: translate_leave_frame(t); return true;
	default: return false;
	}
}

/* Frequent privileged instructions, and those that read the processor's state; false: C does it. */
static bool translate_inline(struct translation *t)
{
	switch (t->at->insn.encoding.class) {
	case X86_CLASS_STRING: return translate_inline_string(t);
	case X86_CLASS_CLI: return translate_inline_cli(t);
	case X86_CLASS_STI: return translate_inline_sti(t);
	case X86_CLASS_CLAC: return translate_inline_smap(t, false);
	case X86_CLASS_STAC: return translate_inline_smap(t, true);
	case X86_CLASS_SWAPGS: return translate_inline_swapgs(t);
	case X86_CLASS_PUSHF: return translate_inline_pushf(t);
	case X86_CLASS_POPF: return translate_inline_popf(t);
	case X86_CLASS_READ_SEGMENT: return translate_inline_read_segment(t);
	case X86_CLASS_RDTSC: translate_read_time(t); return true;
	case X86_CLASS_RDTSCP: translate_read_time_and_processor(t); return true;
	case X86_CLASS_DIRECTION: translate_set_direction(t); return true;
	case X86_CLASS_FS_GS_BASE: return translate_fs_gs_base(t);
	case X86_CLASS_READ_CONTROL: return translate_read_control(t);
	case X86_CLASS_SYSCALL: return translate_syscall(t);
	case X86_CLASS_SYSRET: return translate_sysret(t);
	default: return false;
	}
}

bool translate_is_fpu_off(const struct translation *t, const struct x86_insn *i)
{
	return x86_insn_is(i, X86_ENC_FPU) &&
	       (t->mode & MODE_FPU_OFF || (t->mode & MODE_AVX_OFF && i->kind));
}

/* Instructions that find the guest's flags in flags_word, and leave them there. */
static bool works_on_the_word(const struct x86_insn *i)
{
	switch (i->encoding.class) {
	case X86_CLASS_PUSHF:
	case X86_CLASS_POPF:
	case X86_CLASS_SYSCALL:
	case X86_CLASS_SYSRET: return true;
	default: return false;
	}
}

static bool is_near_jump(const struct x86_insn *i)
{
	return i->encoding.class == X86_CLASS_JMP || i->encoding.class == X86_CLASS_JCC ||
	       i->encoding.class == X86_CLASS_LOOP;
}

static bool uses_stack_or_string(const struct x86_insn *i)
{
	switch (i->encoding.class) {
	case X86_CLASS_STRING:
	case X86_CLASS_CALL:
	case X86_CLASS_CALL_INDIRECT:
	case X86_CLASS_RET:
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_PUSH_RM:
	case X86_CLASS_POP:
	case X86_CLASS_LEAVE:
	case X86_CLASS_PUSHF:
	case X86_CLASS_POPF: return true;
	default: return false;
	}
}

/* Whether an access by this segment may meet a limit: insn/limit.c. */
static bool is_limited(const struct translation *t, unsigned segment)
{
	switch (segment) {
	case X86_CS: return true;
	case X86_FS: return t->mode & MODE_FS_LIMITED;
	case X86_GS: return t->mode & MODE_GS_LIMITED;
	default: return t->mode & MODE_LIMITED;
	}
}

/* C looks at the operand, or at where a jump leads, before it happens. */
static bool needs_check(const struct translation *t, const struct x86_insn *i)
{
	bool has_operand = (x86_insn_has_memory(i) && !x86_insn_is(i, X86_ENC_ADDRESS_ONLY)) ||
			   i->encoding.immediate == X86_IMM_MOFFS;
	uint64_t target = translate_after_insn(t) + i->imm;

	if (i->encoding.class == X86_CLASS_HINT)
		return false;
	if (t->mode & MODE_ALIGNED && (has_operand || uses_stack_or_string(i)))
		return true;
	if (t->code_bits == 64 || t->mode & BLOCK_CHECKED)
		return false;
	if (is_near_jump(i)) /* of 16 bits: the target is cut */
		return t->mode & MODE_LIMITED || (i->operand_bytes == 2 && target > 0xffff);
	return has_operand && is_limited(t, i->segment);
}

/* Looked up whole; where that fails C does what the mask enables, element by element. */
static void translate_masked(struct translation *t)
{
	unsigned first = t->cold_count;

	translate_copy_memory(t);
	for (unsigned n = first; n < t->cold_count; n++)
		if (t->cold[n].kind == COLD_MEMORY) {
			t->cold[n].kind = COLD_SYSTEM;
			t->cold[n].from[0] = t->cold[n].crossing;
		}
}

void translate_insn(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if (translate_is_fpu_off(t, i) || needs_check(t, i) ||
	    translate_leaves_addresses(t, t->at)) {
		translate_system_exit(t);
		return;
	}
	if (!x86_insn_has_memory(i) && !works_on_the_word(i))
		translate_want_flags(t);
	switch (i->encoding.class) {
	case X86_CLASS_DATA:
	case X86_CLASS_BIT_STRING:
		if (x86_insn_is_masked(i))
			translate_masked(t);
		else if (x86_insn_has_memory(i))
			translate_copy_memory(t);
		else
			translate_copy_registers(t);
		return;
	case X86_CLASS_LEA: translate_copy_lea(t); return;
	case X86_CLASS_HINT: return;
	case X86_CLASS_PAUSE:
		/* another may wait for this host processor: C gives it away now and then */
		if (t->engine->cpu_count > 1)
			break;
		emit8(out(t), 0xf3);
		emit8(out(t), 0x90);
		return;
	default:
		if (translate_control(t) || translate_inline(t))
			return;
	}
	translate_system_exit(t);
}
