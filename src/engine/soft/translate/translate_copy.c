/*
 * Data instructions: the host executes a copy with registers renamed and the memory operand
 * rewritten.
 */
#include <assert.h>

#include "translate_internal.h"

static uint8_t renamed(const struct renaming *renaming, uint8_t guest, bool high)
{
	for (unsigned n = 0; n < renaming->count; n++)
		if (renaming->guest[n] == guest && renaming->high[n] == high)
			return renaming->host[n];
	return guest;
}

enum { USE_READ = 1, USE_WRITE = 2, USE_BOTH = 3 };

static unsigned use_of(const struct x86_insn *insn, uint32_t read, uint32_t write)
{
	unsigned use = (x86_insn_is(insn, read) ? USE_READ : 0u) |
		       (x86_insn_is(insn, write) ? USE_WRITE : 0u);

	return use ? use : USE_BOTH;
}

static unsigned rm_use(const struct x86_insn *insn)
{
	return use_of(insn, X86_ENC_RM_READ, X86_ENC_RM_WRITE);
}
static unsigned reg_use(const struct x86_insn *insn)
{
	return use_of(insn, X86_ENC_REG_READ, X86_ENC_REG_WRITE);
}

/* Is modrm.reg one of AH, CH, DH, BH? */
static bool is_high_byte(const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_REG8) && !insn->rex && insn->reg >= 4 && insn->reg < 8;
}

/* A write of less than four bytes leaves the rest: that is reading, too. */
static uint8_t whole(const struct x86_insn *insn, unsigned use, bool byte)
{
	return (uint8_t)(use & USE_WRITE && (byte || insn->operand_bytes == 2) ? USE_BOTH : use);
}

static void want(struct renaming *renaming, uint8_t guest, bool high, unsigned use)
{
	for (unsigned n = 0; n < renaming->count; n++)
		if (renaming->guest[n] == guest && renaming->high[n] == high) {
			renaming->use[n] |= (uint8_t)use;
			return;
		}
	assert(renaming->count < sizeof(renaming->guest));
	renaming->guest[renaming->count] = guest;
	renaming->use[renaming->count] = (uint8_t)use;
	renaming->high[renaming->count++] = high;
}

static uint8_t pick_spill(const struct x86_insn *insn, const struct renaming *renaming)
{
	static const uint8_t candidates[] = { R13, R12, R9, R8, RBP };

	for (unsigned n = 0; n < sizeof(candidates); n++) {
		uint8_t candidate = candidates[n];
		bool taken = candidate == renaming->spilled ||
			     (insn->has_modrm && (candidate == insn->reg ||
						  (insn->mod == 3 && candidate == insn->rm))) ||
			     candidate == insn->vvvv ||
			     (x86_insn_has_memory(insn) &&
			      (candidate == insn->base || candidate == insn->index));

		if (!taken)
			return candidate;
	}
	return RSI;
}

static void assign(struct translation *translation, struct renaming *renaming,
		   const uint8_t *free_regs, unsigned free_count)
{
	const struct x86_insn *insn = &translation->at->insn;

	renaming->spilled = NO_REG;
	for (unsigned n = 0; n < renaming->count; n++) {
		if (n < free_count) {
			renaming->host[n] = free_regs[n];
			continue;
		}
		renaming->host[n] = pick_spill(insn, renaming);
		renaming->spilled = renaming->host[n];
		emit_store(out(translation), renaming->spilled, CPU(temp[2]));
	}
	for (unsigned n = 0; n < renaming->count; n++) {
		if (renaming->high[n]) {
			/* mov [temp], ah..bh: no REX */
			emit_rm(out(translation), OP32(0x88), renaming->guest[n], CPU(temp[1]));
			emit_rm(out(translation), (struct host_op){ .map = 1, .opcode = 0xb6 },
				renaming->host[n], CPU(temp[1]));
		} else if (renaming->use[n] & USE_READ &&
			   !(renaming->host[n] == R10 &&
			     translation->r10_end == out(translation)->out &&
			     translation->r10_guest == renaming->guest[n])) {
			emit_load(out(translation), renaming->host[n], slot(renaming->guest[n]));
		}
	}
}

static void put_back(struct translation *translation, const struct renaming *renaming)
{
	for (unsigned n = 0; n < renaming->count; n++) {
		if (renaming->high[n]) {
			emit_rm(out(translation),
				(struct host_op){ .opcode = 0x88, .force_rex = true },
				renaming->host[n], CPU(temp[1]));
			emit_rm(out(translation), OP32(0x8a), renaming->guest[n], CPU(temp[1]));
		} else if (renaming->use[n] & USE_WRITE) {
			emit_store(out(translation), renaming->host[n], slot(renaming->guest[n]));
		}
	}
	if (renaming->spilled != NO_REG)
		emit_load(out(translation), renaming->spilled, CPU(temp[2]));
	for (unsigned n = 0; n < renaming->count; n++)
		if (renaming->host[n] == R10 && !renaming->high[n]) {
			translation->r10_guest = renaming->guest[n];
			translation->r10_end = out(translation)->out;
		}
}

void translate_collect(const struct x86_insn *insn, struct renaming *renaming, bool needs_rex)
{
	bool high = is_high_byte(insn);

	memset(renaming, 0, sizeof(*renaming));
	renaming->spilled = NO_REG;
	if (x86_insn_is(insn, X86_ENC_REG_GPR) && (displaced(insn->reg) || (high && needs_rex)))
		want(renaming, insn->reg, high,
		     whole(insn, reg_use(insn), x86_insn_is(insn, X86_ENC_REG8)));
	if (((x86_insn_is(insn, X86_ENC_RM_GPR) && insn->mod == 3) ||
	     x86_insn_is(insn, X86_ENC_OPCODE_GPR)) &&
	    displaced(insn->rm))
		want(renaming, insn->rm, false,
		     whole(insn, rm_use(insn), x86_insn_is(insn, X86_ENC_RM8)));
	if (x86_insn_is(insn, X86_ENC_VVVV_GPR) && displaced(insn->vvvv))
		want(renaming, insn->vvvv, false,
		     use_of(insn, X86_ENC_VVVV_READ, X86_ENC_VVVV_WRITE));
}

static void put_immediate(struct translation *translation, const struct host_encoding *encoding)
{
	for (unsigned n = 0; n < encoding->immediate_bytes; n++)
		emit8(out(translation), (uint8_t)(encoding->immediate >> 8 * n));
}

/* Registers renamed; and REX where a byte register would be another one without it. */
static void rename_operands(const struct x86_insn *insn, const struct renaming *renaming,
			    bool memory, struct host_encoding *encoding)
{
	if (x86_insn_is(insn, X86_ENC_VVVV_GPR))
		encoding->op.vvvv = renamed(renaming, insn->vvvv, false);
	if (x86_insn_is(insn, X86_ENC_REG_GPR)) {
		bool high = is_high_byte(insn);
		uint8_t reg = renamed(renaming, encoding->reg, high);

		encoding->op.force_rex |= x86_insn_is(insn, X86_ENC_REG8) &&
					  !(high && reg == insn->reg) &&
					  (insn->rex || reg != insn->reg);
		encoding->reg = reg;
	}
	if ((x86_insn_is(insn, X86_ENC_RM_GPR) && !memory) || x86_insn_is(insn, X86_ENC_OPCODE_GPR))
		encoding->rm = renamed(renaming, encoding->rm, false);
	encoding->op.force_rex |= x86_insn_is(insn, X86_ENC_RM8) && !memory && insn->rex;
}

static void put_encoding(struct translation *translation, const struct host_encoding *encoding,
			 const struct host_mem *memory)
{
	struct host_op op = encoding->op;

	if (encoding->opcode_gpr) {
		emit_prefixes(out(translation), op, false, 0, NO_REG, encoding->rm);
		emit8(out(translation), (op.opcode & 0xf8) | (encoding->rm & 7));
	} else if (!encoding->has_modrm) {
		emit_prefixes(out(translation), op, false, 0, NO_REG, NO_REG);
		emit8(out(translation), op.opcode);
	} else if (memory) {
		emit_rm(out(translation), op, encoding->reg, *memory);
	} else {
		emit_rr(out(translation), op, encoding->reg, encoding->rm);
	}
	put_immediate(translation, encoding);
}

/* Tells of a copy that ends here whoever wants to look at it. */
void translate_copied(struct translation *translation, const uint8_t *start,
		      unsigned looked_up_bytes)
{
	const struct x86_insn *insn = &translation->at->insn;
	const struct soft_engine *engine = translation->engine;

	if (engine->on_copy && !translation->is_again)
		engine->on_copy(
			engine->on_copy_context,
			&(struct emitted_copy){ .insn = insn,
						.host = start,
						.bytes = (unsigned)(out(translation)->out - start),
						.looked_up_bytes = looked_up_bytes,
						.r10_ahead = translation->r10_ahead,
						.writable = x86_insn_is(insn, X86_ENC_MEM_WRITE),
						.in_strip = translation->in_strip,
						.code_bits = translation->code_bits });
}

/* The copy; memory: where its operand is now, or NULL. */
static void put_copy(struct translation *translation, struct host_encoding encoding,
		     const struct renaming *renaming, const struct host_mem *memory)
{
	const struct x86_insn *insn = &translation->at->insn;
	uint8_t *start = out(translation)->out;

	rename_operands(insn, renaming, memory, &encoding);
	put_encoding(translation, &encoding, memory);
	translate_copied(translation, start, encoding.memory_bytes);
}

/*
 * BT m, r and its kin reach beyond the operand: r10 += (r >> log2 bits) * bytes. The sum is the
 * effective address: cut to the address size before the segment's base is added.
 */
static void add_bit_string_offset(struct translation *translation, const struct x86_insn *insn,
				  unsigned operand_bytes)
{
	unsigned log2 = (unsigned)__builtin_ctz(operand_bytes);
	uint8_t from = insn->reg;

	if (displaced(from)) {
		emit_load(out(translation), R11, slot(from));
		from = R11;
	}
	if (operand_bytes == 2)
		emit_rr(out(translation),
			(struct host_op){ .map = 1, .opcode = 0xbf, .rex_w = true }, R11,
			from); /* movsx */
	else if (operand_bytes == 4)
		emit_rr(out(translation), OP64(0x63), R11, from); /* movsxd */
	else
		emit_mov(out(translation), R11, from);
	emit_rr(out(translation), OP64(0xc1), 7, R11); /* sar */
	emit8(out(translation), (uint8_t)(log2 + 3));
	emit_rm(out(translation), insn->address_bytes == 8 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11, .scale_log2 = log2 });
	if (insn->address_bytes == 2)
		emit_rr(out(translation), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10,
			R10); /* movzx */
}

/* The operand that holds the bit is looked up; the copy gets the bit's number within it, in r11. */
static void copy_bit_string(struct translation *translation, struct host_encoding encoding)
{
	const struct x86_insn *insn = &translation->at->insn;
	struct host_mem at_r10 = mem(R10, 0);
	uint8_t *start;
	struct cold *cold;

	translate_leave_flags(translation);
	emit_address(translation, insn, R10, insn->address_bytes);
	add_bit_string_offset(translation, insn, encoding.operand_bytes);
	emit_segment_base(translation, insn);
	cold = emit_lookup(translation, at_r10, IN_R10, encoding.memory_bytes, true,
			   x86_insn_is(insn, X86_ENC_MEM_WRITE));
	emit_lea(out(translation), R10, (struct host_mem){ .base = R10, .index = R11 });
	if (displaced(insn->reg))
		emit_load(out(translation), R11, slot(insn->reg));
	else
		emit_mov(out(translation), R11, insn->reg);
	emit_rr(out(translation), OP32(0x83), 4, R11); /* and */
	emit8(out(translation), (uint8_t)(encoding.operand_bytes * 8 - 1));
	translate_want_flags(translation);
	encoding.reg = R11;
	start = out(translation)->out;
	put_encoding(translation, &encoding, &at_r10);
	translate_copied(translation, start, encoding.memory_bytes);
	translate_end_access(translation, cold);
}

/* Of an instruction that names no displaced register. */
void translate_copy_at(struct translation *translation, struct host_mem access)
{
	struct host_encoding encoding;
	struct renaming none;

	translate_collect(&translation->at->insn, &none, true);
	if (soft_host_encoding(&translation->at->insn, &encoding) && !none.count)
		put_copy(translation, encoding, &none, &access);
	else
		assert(!"what translate_strip() takes");
}

/* r11 is the delta of all that the index may lead to. */
static void copy_from_table(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;

	emit_lea(out(translation), R10, (struct host_mem){ .base = insn->base, .index = R11 });
	translate_want_flags(translation);
	translation->in_strip = true;
	translate_copy_at(translation, (struct host_mem){ .base = R10,
							  .index = insn->index,
							  .scale_log2 = insn->scale_log2,
							  .disp = insn->disp });
	translation->in_strip = false;
}

void translate_copy_memory(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	struct host_encoding encoding;
	struct renaming renaming;
	struct host_mem ea;
	struct host_mem access;
	struct cold *cold;
	enum address_place place;
	uint8_t free_reg;
	bool simple;

	if (!soft_host_encoding(insn, &encoding)) {
		translate_system_exit(translation);
		return;
	}
	if (insn->encoding.class == X86_CLASS_BIT_STRING) {
		copy_bit_string(translation, encoding);
		return;
	}
	if (translation->in_table) {
		copy_from_table(translation);
		return;
	}
	simple = translate_simple_address(translation, insn, encoding.memory_bytes);
	translate_leave_flags(translation);
	place = simple ? IN_REGISTERS : emit_linear(translation, insn, encoding.memory_bytes);
	ea = simple ? mem(insn->base, insn->disp) : translate_placed(place, encoding.memory_bytes);
	cold = emit_lookup(translation, ea, place, encoding.memory_bytes,
			   x86_insn_is(insn, X86_ENC_MEM_READ),
			   x86_insn_is(insn, X86_ENC_MEM_WRITE));
	translate_collect(insn, &renaming, true);
	access = (struct host_mem){ .base = ea.base, .index = R11, .disp = ea.disp };
	if (place != IN_REGISTERS && renaming.count) {
		emit_lea(out(translation), R10, access);
		access = mem(R10, 0);
	}
	free_reg = place == IN_REGISTERS ? R10 : R11;
	assign(translation, &renaming, &free_reg, 1);
	translate_want_flags(translation);
	put_copy(translation, encoding, &renaming, &access);
	translate_end_access(translation, cold);
	put_back(translation, &renaming);
}

void translate_copy_lea(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	bool narrow =
		insn->operand_bytes == 2 || (insn->operand_bytes == 8 && insn->address_bytes != 8);
	uint8_t to = displaced(insn->reg) || narrow ? R10 : insn->reg;

	emit_address(translation, insn, to, insn->operand_bytes == 4 ? 4 : insn->address_bytes);
	if (insn->operand_bytes == 2 && displaced(insn->reg)) {
		emit_rm(out(translation), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10,
			slot(insn->reg));
	} else if (insn->operand_bytes == 2) {
		emit_rr(out(translation), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10,
			insn->reg);
	} else if (displaced(insn->reg)) {
		emit_store(out(translation), R10, slot(insn->reg));
	} else if (to == R10) {
		emit_mov(out(translation), insn->reg, R10);
	}
}

enum {
	OPCODE_FROM_RM = 2, /* in the opcodes below: r/m is the source */
	OPCODE_ALU_LAST = 0x3f,
	OPCODE_MOVSXD = 0x63,
	OPCODE_TEST = 0x85,
	OPCODE_MOV_FIRST = 0x88,
	OPCODE_MOV_LAST = 0x8b,
	OPCODE_2_CMOV_FIRST = 0x40,
	OPCODE_2_CMOV_LAST = 0x4f,
	OPCODE_2_IMUL = 0xaf,
};

/*
 * ADD to CMP, TEST, MOV between a register and r/m, not of bytes: those whose source may change
 * sides.
 */
static bool has_two_directions(const struct host_op *op)
{
	if (op->kind || op->map || !(op->opcode & 1))
		return false;
	return (op->opcode <= OPCODE_ALU_LAST && (op->opcode & 7) < 4) ||
	       op->opcode == OPCODE_TEST ||
	       (op->opcode >= OPCODE_MOV_FIRST && op->opcode <= OPCODE_MOV_LAST);
}

static bool takes_rm_from_memory(const struct host_op *op)
{
	if (has_two_directions(op) || (!op->kind && !op->map && op->opcode == OPCODE_MOVSXD))
		return true;
	return !op->kind && op->map == 1 &&
	       ((op->opcode >= OPCODE_2_CMOV_FIRST && op->opcode <= OPCODE_2_CMOV_LAST) ||
		op->opcode == OPCODE_2_IMUL);
}

/*
 * A displaced source as memory operand of the same instruction; it may have to change sides for
 * that.
 */
static bool copy_from_slot(struct translation *translation, struct host_encoding encoding)
{
	const struct x86_insn *insn = &translation->at->insn;
	const struct renaming none = { .spilled = NO_REG };
	bool rm_displaced = displaced(insn->rm) && x86_insn_is(insn, X86_ENC_RM_GPR);
	bool reg_displaced = displaced(insn->reg) && x86_insn_is(insn, X86_ENC_REG_GPR);
	struct host_mem from;

	if (!insn->has_modrm || insn->operand_bytes == 2 || rm_displaced == reg_displaced ||
	    translation->code_bits != 64)
		return false;
	if (rm_displaced && rm_use(insn) == USE_READ && takes_rm_from_memory(&encoding.op)) {
		from = slot(insn->rm);
	} else if (reg_displaced && reg_use(insn) == USE_READ && has_two_directions(&encoding.op) &&
		   (encoding.op.opcode == OPCODE_TEST || !(encoding.op.opcode & OPCODE_FROM_RM))) {
		from = slot(insn->reg);
		encoding.reg = insn->rm;
		if (encoding.op.opcode != OPCODE_TEST)
			encoding.op.opcode |= OPCODE_FROM_RM;
	} else {
		return false;
	}
	put_copy(translation, encoding, &none, &from);
	return true;
}

void translate_copy_registers(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	static const uint8_t both[2] = { R10, R11 };
	bool r10_kept = translation->r10_end == out(translation)->out;
	struct host_encoding encoding;
	struct renaming renaming;

	if (!soft_host_encoding(insn, &encoding)) {
		translate_system_exit(translation);
		return;
	}
	translate_collect(insn, &renaming, false);
	if (!renaming.count) {
		put_copy(translation, encoding, &renaming, NULL);
		if (r10_kept)
			translation->r10_end = out(translation)->out;
		return;
	}
	if (renaming.count == 1 && !(r10_kept && translation->r10_guest == renaming.guest[0]) &&
	    copy_from_slot(translation, encoding))
		return;
	for (unsigned n = 0; n < renaming.count; n++)
		renaming.high[n] = false;
	assign(translation, &renaming, both, 2);
	put_copy(translation, encoding, &renaming, NULL);
	put_back(translation, &renaming);
}
