/*
 * Data instructions: the host executes a copy with registers renamed and the memory operand
 * rewritten.
 */
#include <assert.h>

#include "translate_internal.h"

static uint8_t renamed(const struct renaming *r, uint8_t guest, bool high)
{
	for (unsigned n = 0; n < r->count; n++)
		if (r->guest[n] == guest && r->high[n] == high)
			return r->host[n];
	return guest;
}

enum { USE_READ = 1, USE_WRITE = 2, USE_BOTH = 3 };

static unsigned use_of(const struct x86_insn *i, uint32_t read, uint32_t write)
{
	unsigned use =
		(x86_insn_is(i, read) ? USE_READ : 0u) | (x86_insn_is(i, write) ? USE_WRITE : 0u);

	return use ? use : USE_BOTH;
}

static unsigned rm_use(const struct x86_insn *i)
{
	return use_of(i, X86_ENC_RM_READ, X86_ENC_RM_WRITE);
}
static unsigned reg_use(const struct x86_insn *i)
{
	return use_of(i, X86_ENC_REG_READ, X86_ENC_REG_WRITE);
}

/* Is modrm.reg one of AH, CH, DH, BH? */
static bool is_high_byte(const struct x86_insn *i)
{
	return x86_insn_is(i, X86_ENC_REG8) && !i->rex && i->reg >= 4 && i->reg < 8;
}

/* A write of less than four bytes leaves the rest: that is reading, too. */
static uint8_t whole(const struct x86_insn *i, unsigned use, bool byte)
{
	return (uint8_t)(use & USE_WRITE && (byte || i->operand_bytes == 2) ? USE_BOTH : use);
}

static void want(struct renaming *r, uint8_t guest, bool high, unsigned use)
{
	for (unsigned n = 0; n < r->count; n++)
		if (r->guest[n] == guest && r->high[n] == high) {
			r->use[n] |= (uint8_t)use;
			return;
		}
	r->guest[r->count] = guest;
	r->use[r->count] = (uint8_t)use;
	r->high[r->count++] = high;
}

static uint8_t pick_spill(const struct x86_insn *i, const struct renaming *r)
{
	static const uint8_t candidates[] = { R13, R12, R9, R8, RBP };

	for (unsigned n = 0; n < sizeof(candidates); n++) {
		uint8_t c = candidates[n];
		bool taken = c == r->spilled ||
			     (i->has_modrm && (c == i->reg || (i->mod == 3 && c == i->rm))) ||
			     c == i->vvvv ||
			     (x86_insn_has_memory(i) && (c == i->base || c == i->index));

		if (!taken)
			return c;
	}
	return RSI;
}

static void assign(struct translation *t, struct renaming *r, const uint8_t *free_regs,
		   unsigned free_count)
{
	const struct x86_insn *i = &t->at->insn;

	r->spilled = NO_REG;
	for (unsigned n = 0; n < r->count; n++) {
		if (n < free_count) {
			r->host[n] = free_regs[n];
			continue;
		}
		r->host[n] = pick_spill(i, r);
		r->spilled = r->host[n];
		emit_store(out(t), r->spilled, CPU(temp[2]));
	}
	for (unsigned n = 0; n < r->count; n++) {
		if (r->high[n]) {
			/* mov [temp], ah..bh: no REX */
			emit_rm(out(t), OP32(0x88), r->guest[n], CPU(temp[1]));
			emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, r->host[n],
				CPU(temp[1]));
		} else if (r->use[n] & USE_READ &&
			   !(r->host[n] == R10 && t->r10_end == out(t)->out &&
			     t->r10_guest == r->guest[n])) {
			emit_load(out(t), r->host[n], slot(r->guest[n]));
		}
	}
}

static void put_back(struct translation *t, const struct renaming *r)
{
	for (unsigned n = 0; n < r->count; n++) {
		if (r->high[n]) {
			emit_rm(out(t), (struct host_op){ .opcode = 0x88, .force_rex = true },
				r->host[n], CPU(temp[1]));
			emit_rm(out(t), OP32(0x8a), r->guest[n], CPU(temp[1]));
		} else if (r->use[n] & USE_WRITE) {
			emit_store(out(t), r->host[n], slot(r->guest[n]));
		}
	}
	if (r->spilled != NO_REG)
		emit_load(out(t), r->spilled, CPU(temp[2]));
	for (unsigned n = 0; n < r->count; n++)
		if (r->host[n] == R10 && !r->high[n]) {
			t->r10_guest = r->guest[n];
			t->r10_end = out(t)->out;
		}
}

void translate_collect(const struct x86_insn *i, struct renaming *r, bool needs_rex)
{
	bool high = is_high_byte(i);

	memset(r, 0, sizeof(*r));
	r->spilled = NO_REG;
	if (x86_insn_is(i, X86_ENC_REG_GPR) && (displaced(i->reg) || (high && needs_rex)))
		want(r, i->reg, high, whole(i, reg_use(i), x86_insn_is(i, X86_ENC_REG8)));
	if (((x86_insn_is(i, X86_ENC_RM_GPR) && i->mod == 3) ||
	     x86_insn_is(i, X86_ENC_OPCODE_GPR)) &&
	    displaced(i->rm))
		want(r, i->rm, false, whole(i, rm_use(i), x86_insn_is(i, X86_ENC_RM8)));
	if (x86_insn_is(i, X86_ENC_VVVV_GPR) && displaced(i->vvvv))
		want(r, i->vvvv, false, use_of(i, X86_ENC_VVVV_READ, X86_ENC_VVVV_WRITE));
}

static void put_immediate(struct translation *t, const struct host_encoding *h)
{
	for (unsigned n = 0; n < h->immediate_bytes; n++)
		emit8(out(t), (uint8_t)(h->immediate >> 8 * n));
}

/* Registers renamed; and REX where a byte register would be another one without it. */
static void rename_operands(const struct x86_insn *i, const struct renaming *r, bool memory,
			    struct host_encoding *h)
{
	if (x86_insn_is(i, X86_ENC_VVVV_GPR))
		h->op.vvvv = renamed(r, i->vvvv, false);
	if (x86_insn_is(i, X86_ENC_REG_GPR)) {
		bool high = is_high_byte(i);
		uint8_t reg = renamed(r, h->reg, high);

		h->op.force_rex |= x86_insn_is(i, X86_ENC_REG8) && !(high && reg == i->reg) &&
				   (i->rex || reg != i->reg);
		h->reg = reg;
	}
	if ((x86_insn_is(i, X86_ENC_RM_GPR) && !memory) || x86_insn_is(i, X86_ENC_OPCODE_GPR))
		h->rm = renamed(r, h->rm, false);
	h->op.force_rex |= x86_insn_is(i, X86_ENC_RM8) && !memory && i->rex;
}

static void put_encoding(struct translation *t, const struct host_encoding *h,
			 const struct host_mem *memory)
{
	struct host_op op = h->op;

	if (h->opcode_gpr) {
		emit_prefixes(out(t), op, false, 0, NO_REG, h->rm);
		emit8(out(t), (op.opcode & 0xf8) | (h->rm & 7));
	} else if (!h->has_modrm) {
		emit_prefixes(out(t), op, false, 0, NO_REG, NO_REG);
		emit8(out(t), op.opcode);
	} else if (memory) {
		emit_rm(out(t), op, h->reg, *memory);
	} else {
		emit_rr(out(t), op, h->reg, h->rm);
	}
	put_immediate(t, h);
}

/* Tells of a copy that ends here whoever wants to look at it. */
void translate_copied(struct translation *t, const uint8_t *start, unsigned looked_up_bytes)
{
	const struct x86_insn *i = &t->at->insn;
	const struct soft_engine *e = t->engine;

	if (e->on_copy && !t->is_again)
		e->on_copy(e->on_copy_context,
			   &(struct emitted_copy){ .insn = i,
						   .host = start,
						   .bytes = (unsigned)(out(t)->out - start),
						   .looked_up_bytes = looked_up_bytes,
						   .writable = x86_insn_is(i, X86_ENC_MEM_WRITE),
						   .in_strip = t->in_strip,
						   .code_bits = t->code_bits });
}

/* The copy; memory: where its operand is now, or NULL. */
static void put_copy(struct translation *t, struct host_encoding h, const struct renaming *r,
		     const struct host_mem *memory)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t *start = out(t)->out;

	rename_operands(i, r, memory, &h);
	put_encoding(t, &h, memory);
	translate_copied(t, start, h.memory_bytes);
}

/*
 * BT m, r and its kin reach beyond the operand: r10 += (r >> log2 bits) * bytes. The sum is the
 * effective address: cut to the address size before the segment's base is added.
 */
static void add_bit_string_offset(struct translation *t, const struct x86_insn *i,
				  unsigned operand_bytes)
{
	unsigned log2 = (unsigned)__builtin_ctz(operand_bytes);
	uint8_t from = i->reg;

	if (displaced(from)) {
		emit_load(out(t), R11, slot(from));
		from = R11;
	}
	if (operand_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xbf, .w = true }, R11,
			from); /* movsx */
	else if (operand_bytes == 4)
		emit_rr(out(t), OP64(0x63), R11, from); /* movsxd */
	else
		emit_mov(out(t), R11, from);
	emit_rr(out(t), OP64(0xc1), 7, R11); /* sar */
	emit8(out(t), (uint8_t)(log2 + 3));
	emit_rm(out(t), i->address_bytes == 8 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11, .scale_log2 = log2 });
	if (i->address_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10, R10); /* movzx */
}

/* The operand that holds the bit is looked up; the copy gets the bit's number within it, in r11. */
static void copy_bit_string(struct translation *t, struct host_encoding h)
{
	const struct x86_insn *i = &t->at->insn;
	struct host_mem at_r10 = mem(R10, 0);
	uint8_t *start;
	struct cold *c;

	translate_leave_flags(t);
	emit_address(t, i, R10, i->address_bytes);
	add_bit_string_offset(t, i, h.operand_bytes);
	emit_segment_base(t, i);
	c = emit_lookup(t, at_r10, IN_R10, h.memory_bytes, true,
			x86_insn_is(i, X86_ENC_MEM_WRITE));
	emit_lea(out(t), R10, (struct host_mem){ .base = R10, .index = R11 });
	if (displaced(i->reg))
		emit_load(out(t), R11, slot(i->reg));
	else
		emit_mov(out(t), R11, i->reg);
	emit_rr(out(t), OP32(0x83), 4, R11); /* and */
	emit8(out(t), (uint8_t)(h.operand_bytes * 8 - 1));
	translate_want_flags(t);
	h.reg = R11;
	start = out(t)->out;
	put_encoding(t, &h, &at_r10);
	translate_copied(t, start, h.memory_bytes);
	translate_end_access(t, c);
}

/* Of an instruction that names no displaced register. */
void translate_copy_at(struct translation *t, struct host_mem access)
{
	struct host_encoding h;
	struct renaming none;

	translate_collect(&t->at->insn, &none, true);
	if (soft_host_encoding(&t->at->insn, &h) && !none.count)
		put_copy(t, h, &none, &access);
	else
		assert(!"what translate_strip() takes");
}

/* r11, the delta of the page, takes the base's place. */
static struct host_mem looked_up_index(struct translation *t, struct host_mem ea)
{
	if (ea.base != NO_REG)
		emit_lea(out(t), R11, (struct host_mem){ .base = ea.base, .index = R11 });
	ea.base = R11;
	return ea;
}

void translate_copy_memory(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct host_encoding h;
	struct renaming r;
	struct host_mem ea;
	struct host_mem access;
	struct cold *c;
	enum address_place place;
	uint8_t free_reg;
	bool simple, indexed;

	if (!soft_host_encoding(i, &h)) {
		translate_system_exit(t);
		return;
	}
	if (i->encoding.class == X86_CLASS_BIT_STRING) {
		copy_bit_string(t, h);
		return;
	}
	simple = translate_simple_address(t, i, h.memory_bytes);
	indexed = translate_indexed_address(t, i, h.memory_bytes);
	translate_leave_flags(t);
	if (indexed)
		ea = (struct host_mem){ .base = i->base,
					.index = i->index,
					.scale_log2 = i->scale_log2,
					.disp = i->disp };
	else
		ea = simple ? mem(i->base, i->disp) : mem(R10, 0);
	place = simple || indexed ? IN_REGISTERS : emit_linear(t, i, h.memory_bytes);
	c = emit_lookup(t, ea, place, h.memory_bytes, x86_insn_is(i, X86_ENC_MEM_READ),
			x86_insn_is(i, X86_ENC_MEM_WRITE));
	translate_collect(i, &r, true);
	access = indexed ? looked_up_index(t, ea)
			 : (struct host_mem){ .base = ea.base, .index = R11, .disp = ea.disp };
	if (place != IN_REGISTERS && r.count) {
		emit_lea(out(t), R10, access);
		access = mem(R10, 0);
	}
	free_reg = place == IN_REGISTERS ? R10 : R11;
	assign(t, &r, &free_reg, 1);
	translate_want_flags(t);
	put_copy(t, h, &r, &access);
	translate_end_access(t, c);
	put_back(t, &r);
}

void translate_copy_lea(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	bool narrow = i->operand_bytes == 2 || (i->operand_bytes == 8 && i->address_bytes != 8);
	uint8_t to = displaced(i->reg) || narrow ? R10 : i->reg;

	emit_address(t, i, to, i->operand_bytes == 4 ? 4 : i->address_bytes);
	if (i->operand_bytes == 2 && displaced(i->reg)) {
		emit_rm(out(t), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10, slot(i->reg));
	} else if (i->operand_bytes == 2) {
		emit_rr(out(t), (struct host_op){ .opcode = 0x89, .pp = 1 }, R10, i->reg);
	} else if (displaced(i->reg)) {
		emit_store(out(t), R10, slot(i->reg));
	} else if (to == R10) {
		emit_mov(out(t), i->reg, R10);
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
static bool copy_from_slot(struct translation *t, struct host_encoding h)
{
	const struct x86_insn *i = &t->at->insn;
	const struct renaming none = { .spilled = NO_REG };
	bool rm_displaced = displaced(i->rm) && x86_insn_is(i, X86_ENC_RM_GPR);
	bool reg_displaced = displaced(i->reg) && x86_insn_is(i, X86_ENC_REG_GPR);
	struct host_mem from;

	if (!i->has_modrm || i->operand_bytes == 2 || rm_displaced == reg_displaced ||
	    t->code_bits != 64)
		return false;
	if (rm_displaced && rm_use(i) == USE_READ && takes_rm_from_memory(&h.op)) {
		from = slot(i->rm);
	} else if (reg_displaced && reg_use(i) == USE_READ && has_two_directions(&h.op) &&
		   (h.op.opcode == OPCODE_TEST || !(h.op.opcode & OPCODE_FROM_RM))) {
		from = slot(i->reg);
		h.reg = i->rm;
		if (h.op.opcode != OPCODE_TEST)
			h.op.opcode |= OPCODE_FROM_RM;
	} else {
		return false;
	}
	put_copy(t, h, &none, &from);
	return true;
}

void translate_copy_registers(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	static const uint8_t both[2] = { R10, R11 };
	bool r10_kept = t->r10_end == out(t)->out;
	struct host_encoding h;
	struct renaming r;

	if (!soft_host_encoding(i, &h)) {
		translate_system_exit(t);
		return;
	}
	translate_collect(i, &r, false);
	if (!r.count) {
		put_copy(t, h, &r, NULL);
		if (r10_kept)
			t->r10_end = out(t)->out;
		return;
	}
	if (r.count == 1 && !(r10_kept && t->r10_guest == r.guest[0]) && copy_from_slot(t, h))
		return;
	for (unsigned n = 0; n < r.count; n++)
		r.high[n] = false;
	assign(t, &r, both, 2);
	put_copy(t, h, &r, NULL);
	put_back(t, &r);
}
