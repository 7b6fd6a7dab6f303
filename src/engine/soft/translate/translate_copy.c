/* Data instructions: the host executes a copy with registers renamed and the memory operand rewritten. */
#include "translate_internal.h"

static void byte_operands(const struct x86_insn *i, bool *reg8, bool *rm8)
{
	uint8_t op = i->opcode;

	*reg8 = *rm8 = false;
	if (i->kind)
		return;
	if (i->map == 0) {
		if ((op < 0x40 && (op & 7) < 4 && !(op & 1)) || op == 0x84 || op == 0x86 || op == 0x88 || op == 0x8a)
			*reg8 = *rm8 = true;
		if (op == 0xc0 || op == 0xd0 || op == 0xd2 || op == 0xf6 || op == 0xfe || op == 0xc6 || op == 0x80 || (op >= 0xb0 && op <= 0xb7))
			*rm8 = true;
	} else if (i->map == 1) {
		if (op == 0xb0 || op == 0xc0)
			*reg8 = *rm8 = true;
		if ((op >= 0x90 && op <= 0x9f) || op == 0xb6 || op == 0xbe)
			*rm8 = true;
	} else if (i->map == 2 && op == 0xf0 && i->pp == 3) {
		*rm8 = true;
	}
}

static uint8_t renamed(const struct renaming *r, uint8_t guest, bool high)
{
	for (unsigned n = 0; n < r->count; n++)
		if (r->guest[n] == guest && r->high[n] == high)
			return r->host[n];
	return guest;
}

/* ---- which operands are read and written; where the lists do not say, both ---- */

enum { USE_READ = 1, USE_WRITE = 2, USE_BOTH = 3 };

static unsigned rm_use_one_byte(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (op < 0x40)
		return (op & 7) >= 2 || op >> 3 == 7 ? USE_READ : USE_BOTH;
	switch (op) {
	case 0x63: case 0x69: case 0x6b: case 0x84: case 0x85: case 0x8a: case 0x8b: return USE_READ;
	case 0x80: case 0x81: case 0x83: return i->reg == 7 ? USE_READ : USE_BOTH;
	case 0x89: case 0xc7: return USE_WRITE;
	case 0xf6: case 0xf7: return i->reg == 2 || i->reg == 3 ? USE_BOTH : USE_READ;
	case 0xff: return i->reg >= 2 ? USE_READ : USE_BOTH;
	default: return op >= 0xb8 && op <= 0xbf ? USE_WRITE : USE_BOTH;
	}
}

static unsigned rm_use(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->kind || i->map > 1)
		return USE_BOTH;
	if (i->map == 0)
		return rm_use_one_byte(i);
	if ((op >= 0x40 && op <= 0x4f) || op == 0xaf || op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf || op == 0x6e || op == 0x2a || op == 0xb8 || op == 0xbc ||
	    op == 0xbd)
		return USE_READ;
	return op == 0x7e ? USE_WRITE : USE_BOTH;
}

static unsigned reg_use(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->kind || i->map > 1)
		return USE_BOTH;
	if (i->map == 0) {
		if (op < 0x40)
			return (op & 7) < 2 || op >> 3 == 7 ? USE_READ : USE_BOTH;
		if (op == 0x84 || op == 0x85 || op == 0x88 || op == 0x89)
			return USE_READ;
		return op == 0x63 || op == 0x69 || op == 0x6b || op == 0x8b ? USE_WRITE : USE_BOTH;
	}
	return op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf || op == 0x2c || op == 0x2d || op == 0xb8 ? USE_WRITE : USE_BOTH;
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
		bool taken = c == r->spilled || (i->has_modrm && (c == i->reg || (i->mod == 3 && c == i->rm))) || c == i->vvvv ||
			     (x86_insn_has_memory(i) && (c == i->base || c == i->index));

		if (!taken)
			return c;
	}
	return RSI;
}

static void assign(struct translation *t, struct renaming *r, const uint8_t *free_regs, unsigned free_count)
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
			emit_rm(out(t), OP32(0x88), r->guest[n], CPU(temp[1])); /* mov [temp], ah..bh: no REX */
			emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, r->host[n], CPU(temp[1]));
		} else if (r->use[n] & USE_READ && !(r->host[n] == R10 && t->r10_end == out(t)->out && t->r10_guest == r->guest[n])) {
			emit_load(out(t), r->host[n], slot(r->guest[n]));
		}
	}
}

static void put_back(struct translation *t, const struct renaming *r)
{
	for (unsigned n = 0; n < r->count; n++) {
		if (r->high[n]) {
			emit_rm(out(t), (struct host_op){ .opcode = 0x88, .force_rex = true }, r->host[n], CPU(temp[1]));
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
	uint16_t a = i->encoding.attributes;
	bool reg8, rm8;

	memset(r, 0, sizeof(*r));
	r->spilled = NO_REG;
	byte_operands(i, &reg8, &rm8);
	if (a & X86_ENC_REG_GPR && i->has_modrm) {
		bool high = reg8 && !i->rex && i->reg >= 4 && i->reg < 8;

		if (displaced(i->reg) || (high && needs_rex))
			want(r, i->reg, high, whole(i, reg_use(i), reg8));
	}
	if ((a & X86_ENC_RM_GPR && i->has_modrm && i->mod == 3) || a & X86_ENC_OPCODE_GPR)
		if (displaced(i->rm))
			want(r, i->rm, false, whole(i, rm_use(i), rm8));
	if (a & X86_ENC_VVVV_GPR && displaced(i->vvvv))
		want(r, i->vvvv, false, USE_BOTH);
}

static void put_immediate(struct translation *t, const struct x86_insn *i)
{
	for (unsigned n = 0; n < i->imm_bytes; n++)
		emit8(out(t), (uint8_t)(i->imm >> 8 * n));
}

static void put_copy(struct translation *t, const struct x86_insn *i, const struct renaming *r, const struct host_mem *m)
{
	bool reg8, rm8, opcode_gpr = i->encoding.attributes & X86_ENC_OPCODE_GPR;
	struct host_op op = { .kind = i->kind, .map = i->map, .pp = i->pp, .opcode = i->opcode, .w = i->rex_w, .lock = i->lock,
			      .extra66 = i->pp >= 2 && i->canonical66 };
	uint8_t reg = i->reg, rm = i->rm;

	byte_operands(i, &reg8, &rm8);
	op.vvvv = i->encoding.attributes & X86_ENC_VVVV_GPR ? renamed(r, i->vvvv, false) : i->vvvv;
	if (i->encoding.attributes & X86_ENC_REG_GPR) {
		bool high = reg8 && !i->rex && i->reg >= 4 && i->reg < 8;

		reg = renamed(r, i->reg, high);
		op.force_rex |= reg8 && !(high && reg == i->reg) && (i->rex || reg != i->reg);
	}
	if (i->encoding.attributes & X86_ENC_RM_GPR && !m)
		rm = renamed(r, i->rm, false);
	op.force_rex |= rm8 && !m && i->rex;
	if (t->code_bits != 64 && opcode_gpr && i->map == 0 && i->opcode >= 0x40 && i->opcode <= 0x4f) {
		op.opcode = 0xff;
		emit_rr(out(t), op, i->opcode >= 0x48, i->opcode & 7);
		return;
	}
	if (opcode_gpr) {
		rm = renamed(r, i->rm, false);
		op.force_rex = i->rex;
		op.opcode &= 0xf8;
		emit_prefixes(out(t), op, false, 0, NO_REG, rm);
		emit8(out(t), op.opcode | (rm & 7));
	} else if (!i->has_modrm) {
		emit_prefixes(out(t), op, false, 0, NO_REG, NO_REG);
		emit8(out(t), op.opcode);
	} else if (m) {
		emit_rm(out(t), op, reg, *m);
	} else {
		emit_rr(out(t), op, reg, rm);
	}
	put_immediate(t, i);
}

bool translate_bit_string(const struct x86_insn *i)
{
	return !i->kind && i->map == 1 && (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb);
}

static uint8_t operand_log2(const struct x86_insn *i) { return i->operand_bytes == 8 ? 3 : i->operand_bytes == 4 ? 2 : 1; }

/*
 * BT m, r and its kin reach beyond the operand: r10 += (r >> log2 bits) * bytes. The sum is the effective address: cut to the
 * address size before the segment's base is added.
 */
static void add_bit_string_offset(struct translation *t, const struct x86_insn *i)
{
	uint8_t from = i->reg, log2 = operand_log2(i);

	if (displaced(from)) {
		emit_load(out(t), R11, slot(from));
		from = R11;
	}
	if (i->operand_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xbf, .w = true }, R11, from);
	else if (i->operand_bytes == 4)
		emit_rr(out(t), OP64(0x63), R11, from);
	else
		emit_mov(out(t), R11, from);
	emit_rr(out(t), OP64(0xc1), 7, R11);
	emit8(out(t), (uint8_t)(log2 + 3));
	emit_rm(out(t), i->address_bytes == 8 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11, .scale_log2 = log2 });
	if (i->address_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10, R10);
}

static void copy_bit_string(struct translation *t)
{
	struct x86_insn masked = t->at->insn;
	struct renaming r = { .spilled = NO_REG };
	struct host_mem at_r10 = mem(R10, 0);
	struct cold *c;

	translate_leave_flags(t);
	emit_address(t, &masked, R10);
	add_bit_string_offset(t, &masked);
	emit_segment_base(t, &masked);
	c = emit_lookup(t, mem(R10, 0), true, masked.operand_bytes, true, masked.opcode != 0xa3);
	emit_lea(out(t), R10, (struct host_mem){ .base = R10, .index = R11, .disp = -1 });
	if (displaced(masked.reg))
		emit_load(out(t), R11, slot(masked.reg));
	else
		emit_mov(out(t), R11, masked.reg);
	emit_rr(out(t), OP32(0x83), 4, R11);
	emit8(out(t), (uint8_t)(masked.operand_bytes * 8 - 1));
	translate_want_flags(t);
	masked.encoding.attributes &= (uint16_t)~X86_ENC_REG_GPR;
	masked.reg = R11;
	put_copy(t, &masked, &r, &at_r10);
	translate_end_access(t, c);
}

void translate_copy_memory(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	bool write = i->encoding.attributes & X86_ENC_MEM_WRITE;
	unsigned bytes = i->mem_bytes ? i->mem_bytes : 1;
	bool simple = translate_simple_address(t, i, bytes);
	struct host_mem ea = simple ? mem(i->base, i->disp) : mem(R10, 0), access;
	struct renaming r;
	uint8_t free_reg = simple ? R10 : R11;
	struct cold *c;

	if (translate_bit_string(i)) {
		copy_bit_string(t);
		return;
	}
	translate_leave_flags(t);
	if (!simple)
		emit_linear(t, i);
	c = emit_lookup(t, ea, !simple, bytes, i->encoding.attributes & X86_ENC_MEM_READ, write);
	translate_collect(i, &r, true);
	access = (struct host_mem){ .base = ea.base, .index = R11, .disp = ea.disp - 1 };
	if (!simple && r.count) {
		emit_lea(out(t), R10, access);
		access = mem(R10, 0);
	}
	assign(t, &r, &free_reg, 1);
	translate_want_flags(t);
	put_copy(t, i, &r, &access);
	translate_end_access(t, c);
	put_back(t, &r);
}

void translate_copy_lea(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t to = displaced(i->reg) || i->operand_bytes == 2 || (i->operand_bytes == 8 && i->address_bytes != 8) ? R10 : i->reg;

	emit_address(t, i, to);
	if (i->operand_bytes == 4 && (i->address_bytes == 8 || i->base == X86_RIP))
		emit_rr(out(t), OP32(0x89), to, to);
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

/* A displaced source as memory operand of the same instruction; it may have to change sides for that. */
static bool copy_from_slot(struct translation *t, const struct renaming *none)
{
	struct x86_insn i = t->at->insn;
	bool alu, rm_displaced = displaced(i.rm) && i.encoding.attributes & X86_ENC_RM_GPR;
	bool reg_displaced = displaced(i.reg) && i.encoding.attributes & X86_ENC_REG_GPR;
	struct host_mem from;

	if (i.kind || i.map > 1 || !i.has_modrm || i.operand_bytes == 2 || rm_displaced == reg_displaced || t->code_bits != 64)
		return false;
	alu = i.map == 0 && ((i.opcode < 0x40 && (i.opcode & 7) < 4) || i.opcode == 0x84 || i.opcode == 0x85 || (i.opcode >= 0x88 && i.opcode <= 0x8b));
	if (alu && !(i.opcode & 1))
		return false; /* bytes */
	if (rm_displaced && rm_use(&i) == USE_READ &&
	    (alu || (i.map == 0 && i.opcode == 0x63) || (i.map == 1 && ((i.opcode >= 0x40 && i.opcode <= 0x4f) || i.opcode == 0xaf)))) {
		from = slot(i.rm);
	} else if (reg_displaced && alu && reg_use(&i) == USE_READ && (i.opcode == 0x85 || !(i.opcode & 2))) {
		from = slot(i.reg);
		i.reg = i.rm;
		if (i.opcode != 0x85)
			i.opcode |= 2;
	} else {
		return false;
	}
	put_copy(t, &i, none, &from);
	return true;
}

void translate_copy_registers(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	static const uint8_t both[2] = { R10, R11 };
	bool r10_kept = t->r10_end == out(t)->out;
	struct renaming r;

	translate_collect(i, &r, false);
	if (!r.count && t->code_bits == 64) {
		memcpy(out(t)->out, t->at->raw, i->length);
		out(t)->out += i->length;
		if (r10_kept)
			t->r10_end = out(t)->out;
		return;
	}
	if (r.count == 1 && !(r10_kept && t->r10_guest == r.guest[0]) && copy_from_slot(t, &(struct renaming){ .spilled = NO_REG }))
		return;
	for (unsigned n = 0; n < r.count; n++)
		if (r.high[n])
			r.high[n] = false;
	assign(t, &r, both, 2);
	put_copy(t, i, &r, NULL);
	put_back(t, &r);
}
