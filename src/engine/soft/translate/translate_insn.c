/*
 * Which way of translating an instruction takes: by its class in the instruction table
 * (x86/decode_internal.h).
 */
#include "translate_internal.h"

/* 64-bit code, no 66 prefix: operands of the stack have 8 bytes. */
static bool is_long_stack(const struct translation *translation)
{
	return translation->code_bits == 64 && !translation->at->insn.prefix66;
}

static void translate_call(struct translation *translation, uint64_t target)
{
	translate_push_return(translation);
	if (translation->at->is_followed)
		translation->return_end = NULL; /* what comes next is of another place */
	else
		translate_exit_direct(translation, target);
}

/* Jumps and the stack; false: C does it. */
static bool translate_control(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	uint64_t target = translate_jump_target(translation, translation->at);
	bool long_mode = translation->code_bits == 64;

	switch (insn->encoding.class) {
	case X86_CLASS_JCC:
		translate_side_exit(translation,
				    (insn->opcode & 15) ^ translation->at->is_followed,
				    translate_side_target(translation, translation->at));
		return true;
	case X86_CLASS_JMP:
		if (!translation->at->is_followed)
			translate_exit_direct(translation, target);
		return true;
	case X86_CLASS_LOOP:
		if (insn->address_bytes != 2)
			translate_counted_jump(translation);
		return insn->address_bytes != 2;
	case X86_CLASS_CALL:
		if (long_mode)
			translate_call(translation, target);
		return long_mode;
	case X86_CLASS_RET:
		if (long_mode)
			translate_return_near(translation, (unsigned)insn->imm);
		return long_mode;
	case X86_CLASS_JMP_INDIRECT:
	case X86_CLASS_CALL_INDIRECT:
	case X86_CLASS_PUSH_RM: return translate_indirect(translation);
	default: break;
	}
	if (!is_long_stack(translation))
		return false;
	switch (insn->encoding.class) {
	case X86_CLASS_PUSH: translate_push_register(translation, insn->rm); return true;
	case X86_CLASS_POP: translate_pop_register(translation, insn->rm); return true;
	case X86_CLASS_PUSH_IMMEDIATE: translate_push_constant(translation, insn->imm); return true;
	case X86_CLASS_LEAVE: translate_leave_frame(translation); return true;
	default: return false;
	}
}

/* Frequent privileged instructions, and those that read the processor's state; false: C does it. */
static bool translate_inline(struct translation *translation)
{
	switch (translation->at->insn.encoding.class) {
	case X86_CLASS_STRING: return translate_inline_string(translation);
	case X86_CLASS_CLI: return translate_inline_cli(translation);
	case X86_CLASS_STI: return translate_inline_sti(translation);
	case X86_CLASS_CLAC: return translate_inline_smap(translation, false);
	case X86_CLASS_STAC: return translate_inline_smap(translation, true);
	case X86_CLASS_SWAPGS: return translate_inline_swapgs(translation);
	case X86_CLASS_PUSHF: return translate_inline_pushf(translation);
	case X86_CLASS_POPF: return translate_inline_popf(translation);
	case X86_CLASS_READ_SEGMENT: return translate_inline_read_segment(translation);
	case X86_CLASS_RDTSC: translate_read_time(translation); return true;
	case X86_CLASS_RDTSCP: translate_read_time_and_processor(translation); return true;
	case X86_CLASS_DIRECTION: translate_set_direction(translation); return true;
	case X86_CLASS_FS_GS_BASE: return translate_fs_gs_base(translation);
	case X86_CLASS_READ_CONTROL: return translate_read_control(translation);
	case X86_CLASS_SYSCALL: return translate_syscall(translation);
	case X86_CLASS_SYSRET: return translate_sysret(translation);
	default: return false;
	}
}

bool translate_is_fpu_off(const struct translation *translation, const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_FPU) && (translation->mode & MODE_FPU_OFF ||
						  (translation->mode & MODE_AVX_OFF && insn->kind));
}

/* Instructions that find the guest's flags in flags_word, and leave them there. */
static bool works_on_the_word(const struct x86_insn *insn)
{
	switch (insn->encoding.class) {
	case X86_CLASS_PUSHF:
	case X86_CLASS_POPF:
	case X86_CLASS_SYSCALL:
	case X86_CLASS_SYSRET: return true;
	default: return false;
	}
}

static bool is_near_jump(const struct x86_insn *insn)
{
	return insn->encoding.class == X86_CLASS_JMP || insn->encoding.class == X86_CLASS_JCC ||
	       insn->encoding.class == X86_CLASS_LOOP;
}

static bool uses_stack_or_string(const struct x86_insn *insn)
{
	switch (insn->encoding.class) {
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
static bool is_limited(const struct translation *translation, unsigned segment)
{
	switch (segment) {
	case X86_CS: return true;
	case X86_FS: return translation->mode & MODE_FS_LIMITED;
	case X86_GS: return translation->mode & MODE_GS_LIMITED;
	default: return translation->mode & MODE_LIMITED;
	}
}

/* C looks at the operand, or at where a jump leads, before it happens. */
static bool needs_check(const struct translation *translation, const struct x86_insn *insn)
{
	bool has_operand =
		(x86_insn_has_memory(insn) && !x86_insn_is(insn, X86_ENC_ADDRESS_ONLY)) ||
		insn->encoding.immediate == X86_IMM_MOFFS;
	uint64_t target = translate_after_insn(translation) + insn->imm;

	if (insn->encoding.class == X86_CLASS_HINT)
		return false;
	if (translation->mode & MODE_ALIGNED && (has_operand || uses_stack_or_string(insn)))
		return true;
	if (translation->code_bits == 64 || translation->mode & BLOCK_CHECKED)
		return false;
	if (is_near_jump(insn)) /* of 16 bits: the target is cut */
		return translation->mode & MODE_LIMITED ||
		       (insn->operand_bytes == 2 && target > 0xffff);
	return has_operand && is_limited(translation, insn->segment);
}

/* Looked up whole; where that fails C does what the mask enables, element by element. */
static void translate_masked(struct translation *translation)
{
	unsigned first = translation->cold_count;

	translate_copy_memory(translation);
	for (unsigned n = first; n < translation->cold_count; n++)
		if (translation->cold[n].kind == COLD_MEMORY) {
			translation->cold[n].kind = COLD_SYSTEM;
			translation->cold[n].from[0] = translation->cold[n].crossing;
		}
}

void translate_insn(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;

	if (translate_is_fpu_off(translation, insn) || needs_check(translation, insn) ||
	    translate_leaves_addresses(translation, translation->at)) {
		translate_system_exit(translation);
		return;
	}
	if (!x86_insn_has_memory(insn) && !works_on_the_word(insn))
		translate_want_flags(translation);
	switch (insn->encoding.class) {
	case X86_CLASS_DATA:
	case X86_CLASS_BIT_STRING:
		if (x86_insn_is_masked(insn))
			translate_masked(translation);
		else if (x86_insn_has_memory(insn))
			translate_copy_memory(translation);
		else
			translate_copy_registers(translation);
		return;
	case X86_CLASS_LEA: translate_copy_lea(translation); return;
	case X86_CLASS_HINT: return;
	case X86_CLASS_PAUSE:
		/* another may wait for this host processor: C gives it away now and then */
		if (translation->engine->cpu_count > 1)
			break;
		emit8(out(translation), 0xf3);
		emit8(out(translation), 0x90);
		return;
	default:
		if (translate_control(translation) || translate_inline(translation))
			return;
	}
	translate_system_exit(translation);
}
