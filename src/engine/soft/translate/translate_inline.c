/*
 * Strings and frequent privileged instructions in place; the unusual case of each goes to C
 * (COLD_SYSTEM).
 */
#include "translate_internal.h"

/* The flags say "above": the operand at reg ends behind its page, or is longer. Leaves r11. */
static void string_ends(struct translation *t, uint8_t reg, bool repeated, unsigned log2)
{
	emit_rr(out(t), OP32(0x89), reg, R10);
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), PAGE_OFFSET_MASK);
	if (repeated)
		emit_lea(out(t), R10,
			 (struct host_mem){
				 .base = R10, .index = RCX, .scale_log2 = (uint8_t)log2 });
	else
		emit_lea(out(t), R10, mem(R10, 1 << log2));
	emit_rr(out(t), OP32(0x81), 7, R10);
	emit32(out(t), PAGE_BYTES);
}

/*
 * r10 = host address of the operand at reg, by way of r11 = host - guest; leaves r11. What is not
 * cached or not all in one page goes to C; not to the page beside where that is mispredicted.
 */
static void string_pointer(struct translation *t, struct cold *c, uint8_t reg, bool write,
			   bool repeated, unsigned log2)
{
	emit_entry(t, reg, write);
	string_ends(t, reg, repeated, log2);
	emit_drop_entry(t, CC_A);
	if (repeated) { /* so many that the sum above is another */
		emit_rr(out(t), OP64(0x81), 7, RCX);
		emit32(out(t), PAGE_BYTES);
		emit_drop_entry(t, CC_A);
	}
	emit_rr(out(t), OP32(0xf6), 0, R11);
	emit8(out(t), 1);
	translate_or_else(t, c, CC_Z);
	emit_unpoison(out(t), R11);
	emit_lea(out(t), R10, (struct host_mem){ .base = reg, .index = R11 });
}

/* A host address, which a non-canonical guest address does not become. */
static void string_canonical(struct translation *t, struct cold *c, uint8_t hva, uint8_t scratch)
{
	emit_mov(out(t), scratch, hva);
	emit_rr(out(t), OP64(0xc1), 5, scratch); /* shr: bits 63:47 */
	emit8(out(t), 47);
	translate_or_else(t, c, CC_NZ);
}

/*
 * MOVS, STOS, CMPS, SCAS: the host's own instruction on host addresses when each operand lies in
 * one cached page and the direction is up; everything else is C's. Nothing can fault between the
 * exchange of the addresses and their return.
 */
bool translate_inline_string(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t kind = i->opcode & 0xfe;
	bool move = kind == 0xa4;
	bool store = kind == 0xaa;
	bool compare = kind == 0xa6;
	bool scan = kind == 0xae;
	bool repeated = i->rep || i->repne;
	bool two = move || compare;
	unsigned bytes = i->opcode & 1 ? i->operand_bytes : 1;
	unsigned log2 = (unsigned)__builtin_ctz(bytes);
	struct cold *c;

	if ((!move && !store && !compare && !scan) || t->code_bits != 64 || i->address_bytes != 8 ||
	    i->segment_override)
		return false;
	translate_leave_flags(t);
	c = translate_new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0xf7), 0, CPU(state.rflags));
	emit32(out(t), FLAG_DF);
	translate_or_else(t, c, CC_NZ);
	if (two) {
		string_pointer(t, c, RSI, false, repeated, log2);
		emit_store(out(t), R11, CPU(temp[2]));
		emit_store(out(t), R10, CPU(temp[0]));
		string_canonical(t, c, R10, R11);
	}
	string_pointer(t, c, RDI, move || store, repeated, log2);
	emit_store(out(t), R11, CPU(commit_r11));
	string_canonical(t, c, R10, R11);
	emit_store(out(t), R10, CPU(temp[1]));
	translate_want_flags(t);
	emit_load(out(t), RDI, CPU(temp[1]));
	if (two)
		emit_load(out(t), RSI, CPU(temp[0]));
	if (i->rep)
		emit8(out(t), 0xf3);
	if (i->repne)
		emit8(out(t), 0xf2);
	if (bytes == 2)
		emit8(out(t), 0x66);
	if (bytes == 8)
		emit8(out(t), 0x48);
	emit8(out(t), i->opcode);
	for (int n = 0; n < 1 + two; n++) { /* reg - r11, flags untouched */
		uint8_t reg = n ? RSI : RDI;

		emit_load(out(t), R11, n ? CPU(temp[2]) : CPU(commit_r11));
		emit_rr(out(t), OP64(0xf7), 2, R11);
		emit_lea(out(t), reg, (struct host_mem){ .base = reg, .index = R11, .disp = 1 });
	}
	return true;
}

/* ---- frequent privileged instructions ---- */

static struct host_mem segment_field(unsigned segment, size_t offset)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       segment * sizeof(struct x86_segment_state) + offset);
}

static bool kernel_code(const struct translation *t)
{
	return !(t->mode & MODE_USER) && t->code_bits == 64;
}

/* CLI outside user code, where IOPL decides. */
bool translate_inline_cli(struct translation *t)
{
	if (t->mode & MODE_USER)
		return false;
	emit_rm(out(t), OP32(0xc6), 0, CPU(interrupt_flag));
	emit8(out(t), 0);
	return true;
}

/*
 * STI in kernel code: nothing happens between it and the next instruction, which is in this block.
 */
bool translate_inline_sti(struct translation *t)
{
	struct cold *c;

	if (!kernel_code(t) || t->at + 1 == t->insns + t->count || t->mode & BLOCK_ALONE)
		return false;
	translate_leave_flags(t);
	c = translate_new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0x83), 7, CPU(interrupt_pending));
	emit8(out(t), 0);
	translate_or_else(t, c, CC_NZ);
	emit_rm(out(t), OP32(0xc6), 0, CPU(interrupt_flag));
	emit8(out(t), 1);
	return true;
}

/* STAC, CLAC with SMAP on: another view. */
bool translate_inline_smap(struct translation *t, bool set)
{
	unsigned view = set ? VIEW_KERNEL_AC : VIEW_KERNEL;
	struct cold *c;

	if (!kernel_code(t))
		return false;
	translate_leave_flags(t);
	c = translate_new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0xf7), 0, CPU(state.cr4));
	emit32(out(t), CR4_SMAP);
	translate_or_else(t, c, CC_Z);
	emit_rm(out(t), OP32(0x81), set ? 1 : 4, CPU(state.rflags));
	emit32(out(t), set ? FLAG_AC : ~(uint32_t)FLAG_AC);
	emit_load(out(t), R15, cpu_mem(offsetof(struct soft_cpu, view_read) + 8 * view));
	emit_load(out(t), R14, cpu_mem(offsetof(struct soft_cpu, view_write) + 8 * view));
	emit_store(out(t), R15, CPU(read_table));
	emit_store(out(t), R14, CPU(write_table));
	return true;
}

bool translate_inline_swapgs(struct translation *t)
{
	struct host_mem base = segment_field(X86_GS, offsetof(struct x86_segment_state, base));

	if (!kernel_code(t))
		return false;
	emit_load(out(t), R10, base);
	emit_load(out(t), R11, CPU(state.kernel_gs_base));
	emit_store(out(t), R11, base);
	emit_store(out(t), R10, CPU(state.kernel_gs_base));
	return true;
}

bool translate_inline_read_segment(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if (i->mod != 3 || (i->reg & 7) > X86_GS || t->code_bits != 64)
		return false;
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10,
		segment_field(i->reg & 7, offsetof(struct x86_segment_state, selector)));
	if (i->operand_bytes == 2)
		emit_rm(out(t), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10, slot(i->rm));
	else if (displaced(i->rm))
		emit_store(out(t), R10, slot(i->rm));
	if (displaced(i->rm))
		return true;
	if (i->operand_bytes == 2)
		emit_rr(out(t), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10, i->rm);
	else
		emit_mov(out(t), i->rm, R10);
	return true;
}

/* RFLAGS, without RF and VM, from where it is kept to r10; flags_word is up to date. Uses r11. */
void translate_flags_to_r10(struct translation *t)
{
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R10,
		cpu_mem(offsetof(struct soft_cpu, flags_word) + 1));
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), 0xd5);
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, CPU(flags_word));
	emit_rr(out(t), OP32(0xc1), 4, R11);
	emit8(out(t), 11);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, CPU(interrupt_flag));
	emit_rr(out(t), OP32(0xc1), 4, R11);
	emit8(out(t), 9);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rm(out(t), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(t), OP32(0x81), 4, R11);
	emit32(out(t), ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | FLAG_RF | FLAG_VM));
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rr(out(t), OP32(0x83), 1, R10);
	emit8(out(t), 2);
}

/* The arithmetic flags of r10 become the guest's, in flags_word. Uses r10, r11. */
void translate_flags_from_r10(struct translation *t)
{
	emit_rr(out(t), OP32(0x89), R10, R11);
	/* to the second byte */
	emit_rr(out(t), OP32(0xc1), 4, R10);
	emit8(out(t), 8);
	emit_rr(out(t), OP32(0xc1), 5, R11);
	emit8(out(t), 11);
	emit_rr(out(t), OP32(0x83), 4, R11);
	emit8(out(t), 1);
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), 0xd500);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_store(out(t), R10, CPU(flags_word));
	t->flags_set = true;
	t->word_flags = true;
	t->host_flags = false;
}

/* PUSHF: flags_word is brought up to date first. */
bool translate_inline_pushf(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct cold *c;

	if (t->code_bits != 64 || i->prefix66)
		return false;
	translate_save_flags(t);
	t->host_flags = false;
	translate_flags_to_r10(t);
	emit_store(out(t), R10, CPU(temp[2]));
	c = emit_lookup(t, mem(RSP, -8), IN_REGISTERS, 8, false, true);
	emit_load(out(t), R10, CPU(temp[2]));
	emit_store(out(t), R10, pushed);
	translate_end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, -8));
	return true;
}

/*
 * POPF in kernel code, as long as only arithmetic flags and IF change and no interrupt waits for
 * IF.
 */
bool translate_inline_popf(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct cold *c, *system;

	if (!kernel_code(t) || i->prefix66 || t->mode & BLOCK_ALONE)
		return false;
	translate_save_flags(t); /* C and a fault want the old ones */
	t->host_flags = false;
	system = translate_new_cold(t, COLD_SYSTEM);
	c = emit_lookup(t, mem(RSP, 0), IN_REGISTERS, 8, true, false);
	emit_load(out(t), R10, popped);
	c->after = out(t)->out;
	emit_rm(out(t), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(t), OP32(0x31), R10, R11);
	emit_rr(out(t), OP32(0xf7), 0, R11);
	emit32(out(t), 0x3f7fd7 & ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | 2));
	translate_or_else(t, system, CC_NZ);
	emit_rr(out(t), OP32(0xf7), 0, R10);
	emit32(out(t), FLAG_IF);
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0x90 | CC_NZ, .force_rex = true }, 0,
		R11);
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, R11);
	emit_rm(out(t), OP32(0x85), R11, CPU(interrupt_pending)); /* 0 or 1, both */
	translate_or_else(t, system, CC_NZ);
	emit_rm(out(t), (struct host_op){ .opcode = 0x88, .force_rex = true }, R11,
		CPU(interrupt_flag));
	emit_lea(out(t), RSP, mem(RSP, 8));
	translate_flags_from_r10(t);
	return true;
}
