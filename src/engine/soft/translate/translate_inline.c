/*
 * Strings and frequent privileged instructions in place; the unusual case of each goes to C
 * (COLD_SYSTEM).
 */
#include "translate_internal.h"

/* The flags say "above": the operand at reg ends behind its page, or is longer. Leaves r11. */
static void string_ends(struct translation *translation, uint8_t reg, bool repeated, unsigned log2)
{
	emit_rr(out(translation), OP32(0x89), reg, R10);
	emit_rr(out(translation), OP32(0x81), 4, R10);
	emit32(out(translation), PAGE_OFFSET_MASK);
	if (repeated)
		emit_lea(out(translation), R10,
			 (struct host_mem){
				 .base = R10, .index = RCX, .scale_log2 = (uint8_t)log2 });
	else
		emit_lea(out(translation), R10, mem(R10, 1 << log2));
	emit_rr(out(translation), OP32(0x81), 7, R10);
	emit32(out(translation), PAGE_BYTES);
}

/*
 * r10 = host address of the operand at reg, by way of r11 = host - guest; leaves r11. What is not
 * cached or not all in one page goes to C; not to the page beside where that is mispredicted.
 */
static void string_pointer(struct translation *translation, struct cold *cold, uint8_t reg,
			   bool write, bool repeated, unsigned log2)
{
	emit_entry(translation, reg, write);
	string_ends(translation, reg, repeated, log2);
	emit_drop_entry(translation, CC_A);
	if (repeated) { /* so many that the sum above is another */
		emit_rr(out(translation), OP64(0x81), 7, RCX);
		emit32(out(translation), PAGE_BYTES);
		emit_drop_entry(translation, CC_A);
	}
	emit_rr(out(translation), OP32(0xf6), 0, R11);
	emit8(out(translation), 1);
	translate_or_else(translation, cold, CC_Z);
	emit_unpoison(out(translation), R11);
	emit_lea(out(translation), R10, (struct host_mem){ .base = reg, .index = R11 });
}

/* A host address, which a non-canonical guest address does not become. */
static void string_canonical(struct translation *translation, struct cold *cold, uint8_t hva,
			     uint8_t scratch)
{
	emit_mov(out(translation), scratch, hva);
	emit_rr(out(translation), OP64(0xc1), 5, scratch); /* shr: bits 63:47 */
	emit8(out(translation), 47);
	translate_or_else(translation, cold, CC_NZ);
}

/*
 * MOVS, STOS, CMPS, SCAS: the host's own instruction on host addresses when each operand lies in
 * one cached page and the direction is up; everything else is C's. Nothing can fault between the
 * exchange of the addresses and their return.
 */
bool translate_inline_string(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	uint8_t kind = insn->opcode & 0xfe;
	bool move = kind == 0xa4;
	bool store = kind == 0xaa;
	bool compare = kind == 0xa6;
	bool scan = kind == 0xae;
	bool repeated = insn->rep || insn->repne;
	bool two = move || compare;
	unsigned bytes = insn->opcode & 1 ? insn->operand_bytes : 1;
	unsigned log2 = (unsigned)__builtin_ctz(bytes);
	struct cold *cold;

	if ((!move && !store && !compare && !scan) || translation->code_bits != 64 ||
	    insn->address_bytes != 8 || insn->segment_override)
		return false;
	translate_leave_flags(translation);
	cold = translate_new_cold(translation, COLD_SYSTEM);
	emit_rm(out(translation), OP32(0xf7), 0, CPU(state.rflags));
	emit32(out(translation), FLAG_DF);
	translate_or_else(translation, cold, CC_NZ);
	if (two) {
		string_pointer(translation, cold, RSI, false, repeated, log2);
		emit_store(out(translation), R11, CPU(temp[2]));
		emit_store(out(translation), R10, CPU(temp[0]));
		string_canonical(translation, cold, R10, R11);
	}
	string_pointer(translation, cold, RDI, move || store, repeated, log2);
	emit_store(out(translation), R11, CPU(commit_r11));
	string_canonical(translation, cold, R10, R11);
	emit_store(out(translation), R10, CPU(temp[1]));
	translate_want_flags(translation);
	emit_load(out(translation), RDI, CPU(temp[1]));
	if (two)
		emit_load(out(translation), RSI, CPU(temp[0]));
	if (insn->rep)
		emit8(out(translation), 0xf3);
	if (insn->repne)
		emit8(out(translation), 0xf2);
	if (bytes == 2)
		emit8(out(translation), 0x66);
	if (bytes == 8)
		emit8(out(translation), 0x48);
	emit8(out(translation), insn->opcode);
	for (int n = 0; n < 1 + two; n++) { /* reg - r11, flags untouched */
		uint8_t reg = n ? RSI : RDI;

		emit_load(out(translation), R11, n ? CPU(temp[2]) : CPU(commit_r11));
		emit_rr(out(translation), OP64(0xf7), 2, R11);
		emit_lea(out(translation), reg,
			 (struct host_mem){ .base = reg, .index = R11, .disp = 1 });
	}
	return true;
}

/* ---- frequent privileged instructions ---- */

static struct host_mem segment_field(unsigned segment, size_t offset)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       segment * sizeof(struct x86_segment_state) + offset);
}

static bool kernel_code(const struct translation *translation)
{
	return !(translation->mode & MODE_USER) && translation->code_bits == 64;
}

/* CLI outside user code, where IOPL decides. */
bool translate_inline_cli(struct translation *translation)
{
	if (translation->mode & MODE_USER)
		return false;
	emit_rm(out(translation), OP32(0xc6), 0, CPU(interrupt_flag));
	emit8(out(translation), 0);
	return true;
}

/*
 * STI in kernel code: nothing happens between it and the next instruction, which is in this block.
 */
bool translate_inline_sti(struct translation *translation)
{
	struct cold *cold;

	if (!kernel_code(translation) ||
	    translation->at + 1 == translation->insns + translation->count ||
	    translation->mode & BLOCK_ALONE)
		return false;
	translate_leave_flags(translation);
	cold = translate_new_cold(translation, COLD_SYSTEM);
	emit_rm(out(translation), OP32(0x83), 7, CPU(interrupt_pending));
	emit8(out(translation), 0);
	translate_or_else(translation, cold, CC_NZ);
	emit_rm(out(translation), OP32(0xc6), 0, CPU(interrupt_flag));
	emit8(out(translation), 1);
	return true;
}

/* STAC, CLAC with SMAP on: another view. */
bool translate_inline_smap(struct translation *translation, bool set)
{
	unsigned view = set ? VIEW_KERNEL_AC : VIEW_KERNEL;
	struct cold *cold;

	if (!kernel_code(translation))
		return false;
	translate_leave_flags(translation);
	cold = translate_new_cold(translation, COLD_SYSTEM);
	emit_rm(out(translation), OP32(0xf7), 0, CPU(state.cr4));
	emit32(out(translation), CR4_SMAP);
	translate_or_else(translation, cold, CC_Z);
	emit_rm(out(translation), OP32(0x81), set ? 1 : 4, CPU(state.rflags));
	emit32(out(translation), set ? FLAG_AC : ~(uint32_t)FLAG_AC);
	translate_enter_view(translation, view);
	return true;
}

bool translate_inline_swapgs(struct translation *translation)
{
	struct host_mem base = segment_field(X86_GS, offsetof(struct x86_segment_state, base));

	if (!kernel_code(translation))
		return false;
	emit_load(out(translation), R10, base);
	emit_load(out(translation), R11, CPU(state.kernel_gs_base));
	emit_store(out(translation), R11, base);
	emit_store(out(translation), R10, CPU(state.kernel_gs_base));
	return true;
}

bool translate_inline_read_segment(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;

	if (insn->mod != 3 || (insn->reg & 7) > X86_GS || translation->code_bits != 64)
		return false;
	emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10,
		segment_field(insn->reg & 7, offsetof(struct x86_segment_state, selector)));
	if (insn->operand_bytes == 2)
		emit_rm(out(translation), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10,
			slot(insn->rm));
	else if (displaced(insn->rm))
		emit_store(out(translation), R10, slot(insn->rm));
	if (displaced(insn->rm))
		return true;
	if (insn->operand_bytes == 2)
		emit_rr(out(translation), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10,
			insn->rm);
	else
		emit_mov(out(translation), insn->rm, R10);
	return true;
}

/* RFLAGS, without RF and VM, from where it is kept to r10; flags_word is up to date. Uses r11. */
void translate_flags_to_r10(struct translation *translation)
{
	emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb6 }, R10,
		cpu_mem(offsetof(struct soft_cpu, flags_word) + 1));
	emit_rr(out(translation), OP32(0x81), 4, R10);
	emit32(out(translation), 0xd5);
	emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11,
		CPU(flags_word));
	emit_rr(out(translation), OP32(0xc1), 4, R11);
	emit8(out(translation), 11);
	emit_rr(out(translation), OP32(0x09), R11, R10);
	emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11,
		CPU(interrupt_flag));
	emit_rr(out(translation), OP32(0xc1), 4, R11);
	emit8(out(translation), 9);
	emit_rr(out(translation), OP32(0x09), R11, R10);
	emit_rm(out(translation), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(translation), OP32(0x81), 4, R11);
	emit32(out(translation), ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | FLAG_RF | FLAG_VM));
	emit_rr(out(translation), OP32(0x09), R11, R10);
	emit_rr(out(translation), OP32(0x83), 1, R10);
	emit8(out(translation), 2);
}

/* The arithmetic flags of r10 become the guest's, in flags_word. Uses r10, r11. */
void translate_flags_from_r10(struct translation *translation)
{
	emit_rr(out(translation), OP32(0x89), R10, R11);
	/* to the second byte */
	emit_rr(out(translation), OP32(0xc1), 4, R10);
	emit8(out(translation), 8);
	emit_rr(out(translation), OP32(0xc1), 5, R11);
	emit8(out(translation), 11);
	emit_rr(out(translation), OP32(0x83), 4, R11);
	emit8(out(translation), 1);
	emit_rr(out(translation), OP32(0x81), 4, R10);
	emit32(out(translation), 0xd500);
	emit_rr(out(translation), OP32(0x09), R11, R10);
	emit_store(out(translation), R10, CPU(flags_word));
	translation->flags_set = true;
	translation->word_flags = true;
	translation->host_flags = false;
}

/* PUSHF: flags_word is brought up to date first. */
bool translate_inline_pushf(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;

	if (translation->code_bits != 64 || insn->prefix66)
		return false;
	translate_save_flags(translation);
	translation->host_flags = false;
	translate_flags_to_r10(translation);
	translate_push_r10(translation);
	return true;
}

/*
 * POPF in kernel code, as long as only arithmetic flags and IF change and no interrupt waits for
 * IF.
 */
bool translate_inline_popf(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	struct cold *cold, *system;

	if (!kernel_code(translation) || insn->prefix66 || translation->mode & BLOCK_ALONE)
		return false;
	translate_save_flags(translation); /* C and a fault want the old ones */
	translation->host_flags = false;
	system = translate_new_cold(translation, COLD_SYSTEM);
	cold = emit_lookup(translation, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(translation), R10, popped);
	cold->after = out(translation)->out;
	emit_rm(out(translation), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(translation), OP32(0x31), R10, R11);
	emit_rr(out(translation), OP32(0xf7), 0, R11);
	emit32(out(translation), 0x3f7fd7 & ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | 2));
	translate_or_else(translation, system, CC_NZ);
	emit_rr(out(translation), OP32(0xf7), 0, R10);
	emit32(out(translation), FLAG_IF);
	emit_rr(out(translation),
		(struct host_op){ .map = 1, .opcode = 0x90 | CC_NZ, .force_rex = true }, 0, R11);
	emit_rr(out(translation), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, R11);
	emit_rm(out(translation), OP32(0x85), R11, CPU(interrupt_pending)); /* 0 or 1, both */
	translate_or_else(translation, system, CC_NZ);
	emit_rm(out(translation), (struct host_op){ .opcode = 0x88, .force_rex = true }, R11,
		CPU(interrupt_flag));
	emit_lea(out(translation), RSP, mem(RSP, 8));
	translate_flags_from_r10(translation);
	return true;
}
