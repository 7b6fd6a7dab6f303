/*
 * From guest code to host code, one block at a time: up to 64 instructions of one page, entered at the top, left at a jump, a
 * system instruction, or a taken conditional branch. The scheme is explained in docs/engine.md.
 *
 * Invariants
 *  1. Between two instructions every guest register is where soft_internal.h says: faults are precise without repair.
 *  2. Host flags are the guest's wherever a later instruction may read them. At an indirect or cross-page exit they are in
 *     flags_word, and a block's indirect entry brings them back if the block reads flags before setting them.
 *  3. No table entry or delta survives an instruction: an invalidation is complete when the processor reaches a poll.
 *  4. A block ends at its page; an instruction that straddles two pages is a block of its own, entered by the dispatcher only.
 */
#include "emit.h"

#include <errno.h>

enum { MAX_INSNS = 64, MAX_COLD = 448, BLOCK_ROOM = 96 << 10 };

/*
 * live_in: arithmetic flags that are looked at later. needs_flags: host flags must be the guest's when it executes.
 */
struct guest_insn { struct x86_insn insn; uint64_t rip; uint8_t live_in; bool needs_flags; uint8_t raw[16]; };

struct cold {
	enum { COLD_MEMORY, COLD_CHAIN, COLD_POLL, COLD_SYSTEM, COLD_GROUP } kind;
	uint8_t *from[8]; /* rel32s that lead here */
	unsigned from_count;
	uint8_t *crossing, *lookup, *retry, *back, *after; /* crossing: the jump taken when the access may cross a page */
	struct host_mem ea;
	bool ea_in_r10, write, read, flags_in_word, rax_in_temp, keeps_result, restores;
	bool host_flags, word_flags, end_host_flags, end_word_flags; /* of a group: before and behind it */
	uint16_t insn, insns; /* index; of a group: how many */
	uint16_t bytes;
	uint64_t target, next_rip;
};

struct translation {
	struct emitter e;
	struct soft_cpu *cpu;
	struct soft_engine *engine;
	uint32_t mode;
	unsigned code_bits;
	bool flat;
	uint64_t cs_base, page; /* linear page of the block */
	struct guest_insn insns[MAX_INSNS];
	unsigned count;
	struct cold cold[MAX_COLD];
	unsigned cold_count;
	struct guest_insn *at;
	uint8_t *base;
	struct block *block;
	uint64_t rip_mask;
	bool ended, next_straddles;
	uint8_t *r10_end;            /* code that ends here leaves the value of r10_guest in r10 */
	uint8_t r10_guest;
	bool grouped;                /* r11 is the delta of the access to come: no lookup */
	struct cold no_cold;         /* what stands for its slow path meanwhile */
	bool flags_set;              /* the instruction's translation has set the next two itself */
	bool host_flags, word_flags; /* where the guest's flags are now: in the host's, in flags_word, or in both */
};

static bool displaced(uint8_t reg) { return reg == 10 || reg == 11 || reg == 14 || reg == 15; }
static struct host_mem slot(uint8_t reg) { return cpu_mem(offsetof(struct soft_cpu, state.gpr) + 8u * reg); }
static struct emitter *out(struct translation *t) { return &t->e; }

static struct cold *new_cold(struct translation *t, int kind)
{
	struct cold *c = &t->cold[t->cold_count++];

	memset(c, 0, sizeof(*c));
	c->kind = kind;
	c->insn = (uint16_t)(t->at - t->insns);
	c->next_rip = (t->at->rip + t->at->insn.length) & t->rip_mask;
	c->flags_in_word = t->word_flags;
	return c;
}

/* ---- flags ---------------------------------------------------------------------------------------------------------------- */

static void save_flags(struct translation *t)
{
	if (!t->word_flags)
		emit_save_flags(out(t), true);
	t->word_flags = true;
}

/* Before code of ours that changes the host's flags; r10 is free. They come back when somebody needs them, not before. */
static void leave_flags(struct translation *t)
{
	if (!t->at->live_in || t->grouped)
		return;
	save_flags(t);
	t->host_flags = false;
}

/* Before the guest's instruction itself. */
static void want_flags(struct translation *t)
{
	if (t->at->needs_flags && !t->host_flags) {
		emit_restore_flags(out(t));
		t->host_flags = true;
	}
}

static void end_access(struct translation *t, struct cold *c)
{
	c->after = out(t)->out;
	c->keeps_result = t->at->insn.encoding.flags_written;
	c->restores = t->host_flags && t->at->live_in;
	c->flags_in_word = t->word_flags && !t->host_flags && !t->at->insn.encoding.flags_written;
}

/* ---- addresses ------------------------------------------------------------------------------------------------------------ */

static bool needs_segment_base(const struct translation *t, const struct x86_insn *i)
{
	if (i->segment == X86_FS || i->segment == X86_GS)
		return true;
	return t->code_bits != 64 && !t->flat;
}

static bool simple_address(const struct translation *t, const struct x86_insn *i, unsigned bytes)
{
	return t->code_bits == 64 && i->address_bytes == 8 && i->base < 16 && !displaced(i->base) && i->index == X86_NO_REGISTER &&
	       !needs_segment_base(t, i) && (int64_t)i->disp + bytes < INT32_MAX && i->disp > INT32_MIN + 1;
}

static uint64_t after_insn(const struct translation *t) { return (t->at->rip + t->at->insn.length) & t->rip_mask; }

/* reg = the effective address, without the segment base. Uses r11 for a displaced index. */
static void emit_address(struct translation *t, const struct x86_insn *i, uint8_t reg)
{
	struct host_mem m = { .base = i->base, .index = i->index, .scale_log2 = i->scale_log2, .disp = i->disp };
	struct host_op lea = i->address_bytes == 8 ? OP64(0x8d) : OP32(0x8d);

	if (i->base == X86_RIP) {
		uint64_t value = after_insn(t) + (uint64_t)(int64_t)i->disp;

		emit_constant(out(t), reg, i->address_bytes == 8 ? value : (uint32_t)value);
		return;
	}
	if (i->base < 16 && displaced(i->base)) {
		emit_load(out(t), R10, slot(i->base));
		m.base = R10;
	}
	if (i->index < 16 && displaced(i->index)) {
		emit_load(out(t), R11, slot(i->index));
		m.index = R11;
	}
	if (m.base == NO_REG && m.index == NO_REG) {
		uint64_t value = (uint64_t)(int64_t)i->disp;

		emit_constant(out(t), reg, i->address_bytes == 8 ? value : i->address_bytes == 4 ? (uint32_t)value : (uint16_t)value);
		return;
	}
	emit_rm(out(t), lea, reg, m);
	if (i->address_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, reg, reg);
}

static void emit_linear(struct translation *t, const struct x86_insn *i)
{
	emit_address(t, i, R10);
	if (needs_segment_base(t, i)) {
		emit_load(out(t), R11, cpu_mem(offsetof(struct soft_cpu, state.segment) + i->segment * sizeof(struct x86_segment_state) +
					       offsetof(struct x86_segment_state, base)));
		emit_rm(out(t), t->code_bits == 64 ? OP64(0x8d) : OP32(0x8d), R10,
			(struct host_mem){ .base = R10, .index = R11, .disp = 0 });
	}
}

/*
 * The lookup: afterwards r11 is (host - guest) + 1 of the page of ea. flags_live: saved before, to be restored by the caller
 * between the returned cold's `back` and its access.
 */
static struct cold *emit_lookup(struct translation *t, struct host_mem ea, bool in_r10, unsigned bytes, bool read, bool write)
{
	struct emitter *e = out(t);
	struct cold *c;
	uint8_t table = write ? R14 : R15;
	unsigned span = 1;

	if (t->grouped)
		return &t->no_cold;
	c = new_cold(t, COLD_MEMORY);
	while (span < bytes)
		span *= 2;
	c->ea = ea;
	c->ea_in_r10 = in_r10;
	c->bytes = (uint16_t)bytes;
	c->read = read;
	c->write = write;
	c->retry = e->out;
	ea.disp += (int32_t)bytes - 1;
	emit_lea(e, R11, ea);
	if (bytes > 1) {
		emit_rr(e, OP32(0xf7), 0, R11);
		emit32(e, 0xfff & ~(span - 1));
		c->crossing = emit_jcc(e, CC_Z);
	}
	c->lookup = e->out;
	emit_rr(e, (struct host_op){ .kind = X86_KIND_VEX128, .map = 2, .opcode = 0xf7, .w = true, .vvvv = table }, R11, R11);
	emit_load(e, R11, (struct host_mem){ .base = table, .index = R11, .scale_log2 = 3, .disp = -(int32_t)TABLE_BIAS });
	emit_rr(e, OP32(0xf6), 0, R11);
	emit8(e, 1);
	c->from[1] = emit_jcc(e, CC_Z);
	c->back = e->out;
	return c;
}

/* ---- ordinary instructions: copied, with registers renamed and the memory operand rewritten -------------------------------- */

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

struct renaming {
	uint8_t guest[4], host[4], use[4];
	bool high[4];
	unsigned count;
	uint8_t spilled; /* a guest register lent as third scratch, or NO_REG */
};

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

static void collect(const struct x86_insn *i, struct renaming *r, bool needs_rex)
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
			      .extra66 = i->pp >= 2 && i->prefix66 };
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

static bool bit_string(const struct x86_insn *i)
{
	return !i->kind && i->map == 1 && (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb);
}

static uint8_t operand_log2(const struct x86_insn *i) { return i->operand_bytes == 8 ? 3 : i->operand_bytes == 4 ? 2 : 1; }

/* BT m, r and its kin reach beyond the operand: r10 += (r >> log2 bits) * bytes. */
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
	emit_lea(out(t), R10, (struct host_mem){ .base = R10, .index = R11, .scale_log2 = log2 });
}

static void copy_bit_string(struct translation *t)
{
	struct x86_insn masked = t->at->insn;
	struct renaming r = { .spilled = NO_REG };
	struct host_mem at_r10 = mem(R10, 0);
	struct cold *c;

	leave_flags(t);
	emit_linear(t, &masked);
	add_bit_string_offset(t, &masked);
	c = emit_lookup(t, mem(R10, 0), true, masked.operand_bytes, true, masked.opcode != 0xa3);
	emit_lea(out(t), R10, (struct host_mem){ .base = R10, .index = R11, .disp = -1 });
	if (displaced(masked.reg))
		emit_load(out(t), R11, slot(masked.reg));
	else
		emit_mov(out(t), R11, masked.reg);
	emit_rr(out(t), OP32(0x83), 4, R11);
	emit8(out(t), (uint8_t)(masked.operand_bytes * 8 - 1));
	want_flags(t);
	masked.encoding.attributes &= (uint16_t)~X86_ENC_REG_GPR;
	masked.reg = R11;
	put_copy(t, &masked, &r, &at_r10);
	end_access(t, c);
}

static void copy_memory(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	bool write = i->encoding.attributes & X86_ENC_MEM_WRITE;
	unsigned bytes = i->mem_bytes ? i->mem_bytes : 1;
	bool simple = simple_address(t, i, bytes);
	struct host_mem ea = simple ? mem(i->base, i->disp) : mem(R10, 0), access;
	struct renaming r;
	uint8_t free_reg = simple ? R10 : R11;
	struct cold *c;

	if (bit_string(i)) {
		copy_bit_string(t);
		return;
	}
	leave_flags(t);
	if (!simple)
		emit_linear(t, i);
	c = emit_lookup(t, ea, !simple, bytes, i->encoding.attributes & X86_ENC_MEM_READ, write);
	collect(i, &r, true);
	access = (struct host_mem){ .base = ea.base, .index = R11, .disp = ea.disp - 1 };
	if (!simple && r.count) {
		emit_lea(out(t), R10, access);
		access = mem(R10, 0);
	}
	assign(t, &r, &free_reg, 1);
	want_flags(t);
	put_copy(t, i, &r, &access);
	end_access(t, c);
	put_back(t, &r);
}

static void copy_lea(struct translation *t)
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
	if (rm_displaced && rm_use(&i) == USE_READ && (alu || (i.map == 0 && i.opcode == 0x63) || (i.map == 1 && ((i.opcode >= 0x40 && i.opcode <= 0x4f) || i.opcode == 0xaf)))) {
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

static void copy_registers(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	static const uint8_t both[2] = { R10, R11 };
	bool r10_kept = t->r10_end == out(t)->out;
	struct renaming r;

	collect(i, &r, false);
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

/* ---- leaving the block ------------------------------------------------------------------------------------------------------ */

static uint32_t jump_index(uint64_t rip) { return (uint32_t)((rip ^ rip >> 12) & (JUMP_CACHE_ENTRIES - 1)); }

/* To a target known now, through the jump cache (it lies in another page). Flags are in flags_word. */
static void exit_constant(struct translation *t, uint64_t target)
{
	size_t entry = offsetof(struct soft_cpu, jump_cache) + jump_index(target) * sizeof(struct jump_entry);
	uint8_t *miss;

	emit_constant(out(t), R11, target);
	emit_store(out(t), R11, CPU(state.rip));
	emit_rm(out(t), OP64(0x03), R11, CPU(jump_key));
	emit_rm(out(t), OP64(0x3b), R11, cpu_mem(entry + offsetof(struct jump_entry, sum)));
	miss = emit_jcc(out(t), CC_NZ);
	emit_jmp_cpu(out(t), entry + offsetof(struct jump_entry, host));
	set_jump(miss, out(t)->out);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_miss));
}

/* To the address in r11. Flags are in flags_word. */
static void exit_indirect(struct translation *t)
{
	size_t cache = offsetof(struct soft_cpu, jump_cache);
	struct host_mem entry = { .base = R10, .index = NO_REG, .gs = true, .disp = (int32_t)cache };
	uint8_t *miss;

	emit_store(out(t), R11, CPU(state.rip));
	emit_rr(out(t), (struct host_op){ .kind = X86_KIND_VEX128, .map = 3, .pp = 3, .opcode = 0xf0, .w = true }, R10, R11);
	emit8(out(t), 12);
	emit_rr(out(t), OP32(0x31), R11, R10);
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), JUMP_CACHE_ENTRIES - 1);
	emit_rr(out(t), OP32(0xc1), 4, R10);
	emit8(out(t), 4);
	emit_rm(out(t), OP64(0x03), R11, CPU(jump_key));
	emit_rm(out(t), OP64(0x3b), R11, entry);
	miss = emit_jcc(out(t), CC_NZ);
	entry.disp = (int32_t)(cache + offsetof(struct jump_entry, host));
	emit_rm(out(t), OP32(0xff), 4, entry);
	set_jump(miss, out(t)->out);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_miss));
}

static bool same_page(const struct translation *t, uint64_t target) { return (t->cs_base + target) >> 12 == t->page && !(t->mode & BLOCK_ALONE); }

static void align_rel32(struct translation *t, unsigned opcode_bytes)
{
	static const uint8_t nops[4][3] = { { 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
	unsigned count = -(unsigned)((uintptr_t)out(t)->out + opcode_bytes) & 3;

	for (unsigned n = 0; n < count; n++)
		emit8(out(t), nops[count][n]);
}

/* An unconditional exit to a known target. */
static void exit_direct(struct translation *t, uint64_t target)
{
	struct cold *c;

	t->ended = true;
	if (!same_page(t, target)) {
		save_flags(t);
		exit_constant(t, target);
		return;
	}
	c = new_cold(t, target > t->at->rip ? COLD_CHAIN : COLD_POLL);
	c->target = target;
	align_rel32(t, 1);
	c->from[0] = emit_jmp(out(t));
}

static void side_exit(struct translation *t, uint8_t cc, uint64_t target)
{
	struct cold *c = new_cold(t, target > t->at->rip && same_page(t, target) ? COLD_CHAIN : COLD_POLL);

	c->target = target;
	align_rel32(t, 2);
	c->from[0] = emit_jcc(out(t), cc);
}

/* C looks at what stands here. */
static void align_data(struct translation *t)
{
	while ((uintptr_t)out(t)->out & 7)
		emit8(out(t), 0xcc);
}

static void emit_system(struct translation *t)
{
	uint8_t *site;

	emit_constant(out(t), R11, t->at->rip);
	emit_store(out(t), R11, CPU(state.rip));
	site = emit_lea_rip(out(t), R11);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_system));
	align_data(t);
	set_jump(site, out(t)->out);
	memcpy(out(t)->out, &t->at->insn, sizeof(t->at->insn));
	out(t)->out += sizeof(t->at->insn);
}

static void system_exit(struct translation *t)
{
	save_flags(t);
	emit_system(t);
	t->ended = true;
}

/* The case that inlined code leaves to C; the flags are in flags_word or dead. c->rax_in_temp: rax was lent. */
static void leave_for_system(struct translation *t, struct cold *c)
{
	if (c->rax_in_temp)
		emit_load(out(t), RAX, CPU(temp[1]));
	emit_system(t);
}

static void or_else(struct translation *t, struct cold *c, uint8_t cc) { c->from[c->from_count++] = emit_jcc(out(t), cc); }

/* ---- stack and control ------------------------------------------------------------------------------------------------------- */

static struct cold *push_lookup(struct translation *t)
{
	leave_flags(t);
	return emit_lookup(t, mem(RSP, -8), false, 8, false, true);
}

static const struct host_mem pushed = { .base = RSP, .index = R11, .disp = -9 };
static const struct host_mem popped = { .base = RSP, .index = R11, .disp = -1 };

static void push_register(struct translation *t, uint8_t reg)
{
	struct cold *c = push_lookup(t);

	if (displaced(reg))
		emit_load(out(t), R10, slot(reg));
	emit_store(out(t), displaced(reg) ? R10 : reg, pushed);
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, -8));
}

static void push_constant(struct translation *t, uint64_t value)
{
	struct cold *c = push_lookup(t);

	if (value == (uint64_t)(int32_t)value) {
		emit_rm(out(t), OP64(0xc7), 0, pushed);
		emit32(out(t), (uint32_t)value);
	} else {
		emit_constant(out(t), R10, value);
		emit_store(out(t), R10, pushed);
	}
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, -8));
}

static void pop_register(struct translation *t, uint8_t reg)
{
	struct cold *c;
	uint8_t to = displaced(reg) || reg == RSP ? R10 : reg;

	leave_flags(t);
	c = emit_lookup(t, mem(RSP, 0), false, 8, true, false);
	emit_load(out(t), to, popped);
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, 8));
	if (reg == RSP)
		emit_mov(out(t), RSP, R10);
	else if (to == R10)
		emit_store(out(t), R10, slot(reg));
}

static void leave_frame(struct translation *t)
{
	struct cold *c;

	leave_flags(t);
	c = emit_lookup(t, mem(RBP, 0), false, 8, true, false);
	emit_load(out(t), R10, (struct host_mem){ .base = RBP, .index = R11, .disp = -1 });
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RBP, 8));
	emit_mov(out(t), RBP, R10);
}

static void return_near(struct translation *t, unsigned extra)
{
	struct cold *c;

	leave_flags(t);
	c = emit_lookup(t, mem(RSP, 0), false, 8, true, false);
	save_flags(t);
	emit_load(out(t), R11, popped);
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, (int32_t)(8 + extra)));
	exit_indirect(t);
	t->ended = true;
}

/* r/m of FF /2, /4, /6 into r11. */
static void load_target(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	bool simple = x86_insn_has_memory(i) && simple_address(t, i, 8);
	struct cold *c;

	leave_flags(t);
	if (!x86_insn_has_memory(i)) {
		if (displaced(i->rm))
			emit_load(out(t), R11, slot(i->rm));
		else
			emit_mov(out(t), R11, i->rm);
		return;
	}
	if (!simple)
		emit_linear(t, i);
	c = emit_lookup(t, simple ? mem(i->base, i->disp) : mem(R10, 0), !simple, 8, true, false);
	emit_load(out(t), R11, (struct host_mem){ .base = simple ? i->base : R10, .index = R11, .disp = (simple ? i->disp : 0) - 1 });
	end_access(t, c);
}

static bool group_ff(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if (i->reg < 2)
		return false;
	if (t->code_bits != 64 || i->prefix66 || i->reg == 3 || i->reg == 5 || i->address_bytes != 8) {
		system_exit(t);
		return true;
	}
	load_target(t);
	if (i->reg == 4) {
		exit_indirect(t);
		t->ended = true;
		return true;
	}
	if (i->reg == 6) {
		emit_mov(out(t), R10, R11);
		/* the slow path of the push must find the value again: r10 is kept across it unless it holds the address */
		emit_store(out(t), R10, CPU(temp[2]));
		struct cold *c = push_lookup(t);

		emit_load(out(t), R10, CPU(temp[2]));
		emit_store(out(t), R10, pushed);
		end_access(t, c);
		emit_lea(out(t), RSP, mem(RSP, -8));
		return true;
	}
	emit_store(out(t), R11, CPU(temp[2]));
	push_constant(t, after_insn(t));
	emit_load(out(t), R11, CPU(temp[2]));
	exit_indirect(t);
	t->ended = true;
	return true;
}

static void counted_jump(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint64_t target = (after_insn(t) + i->imm) & t->rip_mask;
	bool wide = i->address_bytes == 8;
	uint8_t *short_jump, *skip = NULL;

	/* JRCXZ: the host's own, over a jump; the LOOPs count with LEA and test by JRCXZ, so that flags stay. */
	if (i->opcode != 0xe3)
		emit_rm(out(t), wide ? OP64(0x8d) : OP32(0x8d), RCX, mem(RCX, -1));
	if (i->opcode == 0xe0 || i->opcode == 0xe1)
		skip = emit_jcc(out(t), i->opcode == 0xe0 ? CC_Z : CC_NZ);
	if (!wide)
		emit8(out(t), 0x67);
	emit8(out(t), 0xe3);
	emit8(out(t), 0);
	short_jump = out(t)->out;
	if (i->opcode == 0xe3) {
		emit8(out(t), 0xeb);
		emit8(out(t), 0);
		uint8_t *over = out(t)->out;

		short_jump[-1] = (uint8_t)(out(t)->out - short_jump);
		struct cold *c = new_cold(t, COLD_POLL);

		c->target = target;
		align_rel32(t, 1);
		c->from[0] = emit_jmp(out(t));
		over[-1] = (uint8_t)(out(t)->out - over);
		return;
	}
	struct cold *c = new_cold(t, COLD_POLL);

	c->target = target;
	align_rel32(t, 1);
	c->from[0] = emit_jmp(out(t));
	short_jump[-1] = (uint8_t)(out(t)->out - short_jump);
	if (skip)
		set_jump(skip, out(t)->out);
}

static void interrupt_flag(struct translation *t, bool set)
{
	if (t->mode & MODE_USER) {
		system_exit(t); /* user code: IOPL decides */
		return;
	}
	if (set) {
		system_exit(t);
		return;
	}
	emit_rm(out(t), OP32(0xc6), 0, CPU(state.interrupt_flag));
	emit8(out(t), 0);
}

static void read_time(struct translation *t)
{
	static const struct host_op rorx = { .kind = X86_KIND_VEX128, .map = 3, .pp = 3, .opcode = 0xf0, .w = true };

	emit8(out(t), 0x0f), emit8(out(t), 0x31);
	emit_rr(out(t), rorx, RDX, RDX), emit8(out(t), 32);
	emit_load(out(t), R11, CPU(state.tsc_offset));
	emit_lea(out(t), RAX, (struct host_mem){ .base = RAX, .index = RDX });
	emit_lea(out(t), RAX, (struct host_mem){ .base = RAX, .index = R11 });
	emit_rr(out(t), rorx, RDX, RAX), emit8(out(t), 32);
	emit_rr(out(t), OP32(0x89), RDX, RDX);
	emit_rr(out(t), OP32(0x89), RAX, RAX);
}

static bool is_string(uint8_t op) { return (op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf); }

/* ---- strings within one page of each operand ----------------------------------------------------------------------------------- */

/* to = host address of the guest address in reg, by way of r11 = (host - guest) + 1; leaves r11. */
static void string_pointer(struct translation *t, struct cold *c, uint8_t reg, bool write, uint8_t to)
{
	uint8_t table = write ? R14 : R15;

	emit_rr(out(t), (struct host_op){ .kind = X86_KIND_VEX128, .map = 2, .opcode = 0xf7, .w = true, .vvvv = table }, R11, reg);
	emit_load(out(t), R11, (struct host_mem){ .base = table, .index = R11, .scale_log2 = 3, .disp = -(int32_t)TABLE_BIAS });
	emit_rr(out(t), OP32(0xf6), 0, R11);
	emit8(out(t), 1);
	or_else(t, c, CC_Z);
	emit_lea(out(t), to, (struct host_mem){ .base = reg, .index = R11, .disp = -1 });
}

/* r10 = bytes of reg's page up to the end of the operand: more than a page goes to C. */
static void string_fits(struct translation *t, struct cold *c, uint8_t reg, bool repeated, unsigned log2)
{
	emit_rr(out(t), OP32(0x89), reg, R10);
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), 0xfff);
	if (repeated)
		emit_lea(out(t), R10, (struct host_mem){ .base = R10, .index = RCX, .scale_log2 = (uint8_t)log2 });
	else
		emit_lea(out(t), R10, mem(R10, 1 << log2));
	emit_rr(out(t), OP32(0x81), 7, R10);
	emit32(out(t), 4096);
	or_else(t, c, 7); /* above */
}

/* A host address, which a non-canonical guest address does not become. */
static void string_canonical(struct translation *t, struct cold *c, uint8_t hva, uint8_t scratch)
{
	static const struct host_op rorx = { .kind = X86_KIND_VEX128, .map = 3, .pp = 3, .opcode = 0xf0, .w = true };

	emit_rr(out(t), rorx, scratch, hva);
	emit8(out(t), 47);
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, scratch, scratch); /* the low 16 are bits 62:47 */
	emit_rr(out(t), OP32(0x85), scratch, scratch);
	or_else(t, c, CC_NZ);
}

/*
 * MOVS, STOS, CMPS, SCAS: the host's own instruction on host addresses when each operand lies in one cached page and the
 * direction is up; everything else is C's. Nothing can fault between the exchange of the addresses and their return.
 */
static bool inline_string(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t kind = i->opcode & 0xfe;
	bool move = kind == 0xa4, store = kind == 0xaa, compare = kind == 0xa6, scan = kind == 0xae, repeated = i->rep || i->repne;
	bool two = move || compare;
	unsigned bytes = i->opcode & 1 ? i->operand_bytes : 1, log2 = bytes == 8 ? 3 : bytes == 4 ? 2 : bytes == 2 ? 1 : 0;
	struct cold *c;

	if ((!move && !store && !compare && !scan) || t->code_bits != 64 || i->address_bytes != 8 || i->segment_override)
		return false;
	leave_flags(t);
	c = new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0xf7), 0, CPU(state.rflags));
	emit32(out(t), FLAG_DF);
	or_else(t, c, CC_NZ);
	if (repeated) {
		emit_rr(out(t), OP64(0x81), 7, RCX);
		emit32(out(t), 4096);
		or_else(t, c, 7);
	}
	string_fits(t, c, RDI, repeated, log2);
	if (two)
		string_fits(t, c, RSI, repeated, log2);
	if (two) {
		string_pointer(t, c, RSI, false, R10);
		emit_store(out(t), R11, CPU(temp[2]));
		emit_store(out(t), R10, CPU(temp[0]));
		string_canonical(t, c, R10, R11);
	}
	string_pointer(t, c, RDI, move || store, R10);
	emit_store(out(t), R11, CPU(commit_r11));
	string_canonical(t, c, R10, R11);
	emit_store(out(t), R10, CPU(temp[1]));
	want_flags(t);
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
	for (int n = 0; n < 1 + two; n++) { /* reg - (r11 - 1), flags untouched */
		uint8_t reg = n ? RSI : RDI;

		emit_load(out(t), R11, n ? CPU(temp[2]) : CPU(commit_r11));
		emit_rr(out(t), OP64(0xf7), 2, R11);
		emit_lea(out(t), reg, (struct host_mem){ .base = reg, .index = R11, .disp = 2 });
	}
	return true;
}

/* ---- frequent privileged instructions -------------------------------------------------------------------------------------------- */

static struct host_mem segment_field(unsigned segment, size_t offset)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) + segment * sizeof(struct x86_segment_state) + offset);
}

static bool kernel_code(const struct translation *t) { return !(t->mode & MODE_USER) && t->code_bits == 64; }

/* STI in kernel code: nothing happens between it and the next instruction, which is in this block. */
static bool inline_sti(struct translation *t)
{
	struct cold *c;

	if (!kernel_code(t) || t->at + 1 == t->insns + t->count || t->mode & BLOCK_ALONE)
		return false;
	leave_flags(t);
	c = new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0x83), 7, CPU(interrupt_pending));
	emit8(out(t), 0);
	or_else(t, c, CC_NZ);
	emit_rm(out(t), OP32(0xc6), 0, CPU(state.interrupt_flag));
	emit8(out(t), 1);
	return true;
}

/* STAC, CLAC with SMAP on: another view. */
static bool inline_smap(struct translation *t, bool set)
{
	unsigned view = set ? VIEW_KERNEL_AC : VIEW_KERNEL;
	struct cold *c;

	if (!kernel_code(t))
		return false;
	leave_flags(t);
	c = new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0xf7), 0, CPU(state.cr4));
	emit32(out(t), CR4_SMAP);
	or_else(t, c, CC_Z);
	emit_rm(out(t), OP32(0x81), set ? 1 : 4, CPU(state.rflags));
	emit32(out(t), set ? FLAG_AC : ~(uint32_t)FLAG_AC);
	emit_load(out(t), R15, cpu_mem(offsetof(struct soft_cpu, view_read) + 8 * view));
	emit_load(out(t), R14, cpu_mem(offsetof(struct soft_cpu, view_write) + 8 * view));
	emit_store(out(t), R15, CPU(read_table));
	emit_store(out(t), R14, CPU(write_table));
	return true;
}

static bool inline_swapgs(struct translation *t)
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

static bool inline_read_segment(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if (i->mod != 3 || (i->reg & 7) > X86_GS || t->code_bits != 64)
		return false;
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, R10, segment_field(i->reg & 7, offsetof(struct x86_segment_state, selector)));
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

/* PUSHF: flags_word is brought up to date first; what is pushed is put together in r10. */
static bool inline_pushf(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct cold *c;

	if (t->code_bits != 64 || i->prefix66)
		return false;
	save_flags(t);
	t->host_flags = false;
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R10, cpu_mem(offsetof(struct soft_cpu, flags_word) + 1));
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), 0xd5);
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, CPU(flags_word));
	emit_rr(out(t), OP32(0xc1), 4, R11), emit8(out(t), 11);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rm(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, CPU(state.interrupt_flag));
	emit_rr(out(t), OP32(0xc1), 4, R11), emit8(out(t), 9);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rm(out(t), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(t), OP32(0x81), 4, R11);
	emit32(out(t), ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | FLAG_RF | FLAG_VM));
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_rr(out(t), OP32(0x83), 1, R10), emit8(out(t), 2);
	emit_store(out(t), R10, CPU(temp[2]));
	c = emit_lookup(t, mem(RSP, -8), false, 8, false, true);
	emit_load(out(t), R10, CPU(temp[2]));
	emit_store(out(t), R10, pushed);
	end_access(t, c);
	emit_lea(out(t), RSP, mem(RSP, -8));
	return true;
}

/* POPF in kernel code, as long as only arithmetic flags and IF change and no interrupt waits for IF. */
static bool inline_popf(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct cold *c, *system;

	if (!kernel_code(t) || i->prefix66 || t->mode & BLOCK_ALONE)
		return false;
	save_flags(t); /* C and a fault want the old ones */
	t->host_flags = false;
	system = new_cold(t, COLD_SYSTEM);
	c = emit_lookup(t, mem(RSP, 0), false, 8, true, false);
	emit_load(out(t), R10, popped);
	c->after = out(t)->out;
	emit_rm(out(t), OP32(0x8b), R11, CPU(state.rflags));
	emit_rr(out(t), OP32(0x31), R10, R11);
	emit_rr(out(t), OP32(0xf7), 0, R11);
	emit32(out(t), 0x3f7fd7 & ~(uint32_t)(FLAGS_ARITHMETIC | FLAG_IF | 2));
	or_else(t, system, CC_NZ);
	emit_rr(out(t), OP32(0xf7), 0, R10);
	emit32(out(t), FLAG_IF);
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0x90 | CC_NZ, .force_rex = true }, 0, R11);
	emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb6 }, R11, R11);
	emit_rm(out(t), OP32(0x85), R11, CPU(interrupt_pending)); /* 0 or 1, both */
	or_else(t, system, CC_NZ);
	emit_rm(out(t), (struct host_op){ .opcode = 0x88, .force_rex = true }, R11, CPU(state.interrupt_flag));
	emit_lea(out(t), RSP, mem(RSP, 8));
	emit_rr(out(t), OP32(0x89), R10, R11);
	emit_rr(out(t), OP32(0xc1), 4, R10), emit8(out(t), 8); /* arithmetic flags to the second byte */
	emit_rr(out(t), OP32(0xc1), 5, R11), emit8(out(t), 11);
	emit_rr(out(t), OP32(0x83), 4, R11), emit8(out(t), 1);
	emit_rr(out(t), OP32(0x81), 4, R10), emit32(out(t), 0xd500);
	emit_rr(out(t), OP32(0x09), R11, R10);
	emit_store(out(t), R10, CPU(flags_word));
	t->flags_set = true;
	return true;
}

/* True when it was dealt with. */
static bool one_byte_special(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t op = i->opcode;
	bool long_mode = t->code_bits == 64 && !i->prefix66;
	uint64_t target = (after_insn(t) + i->imm) & t->rip_mask;

	if (op >= 0x70 && op <= 0x7f) {
		side_exit(t, op & 15, target);
		return true;
	}
	if (op >= 0x50 && op <= 0x5f && long_mode) {
		if (op < 0x58)
			push_register(t, i->rm);
		else
			pop_register(t, i->rm);
		return true;
	}
	switch (op) {
	case 0x68: case 0x6a:
		if (long_mode)
			push_constant(t, i->imm);
		else
			system_exit(t);
		return true;
	case 0xe8:
		if (t->code_bits != 64) {
			system_exit(t);
			return true;
		}
		push_constant(t, after_insn(t));
		exit_direct(t, target);
		return true;
	case 0xe9: case 0xeb: exit_direct(t, target); return true;
	case 0xc3:
	case 0xc2:
		if (t->code_bits != 64)
			system_exit(t);
		else
			return_near(t, op == 0xc2 ? (unsigned)i->imm : 0);
		return true;
	case 0xc9:
		if (long_mode)
			leave_frame(t);
		else
			system_exit(t);
		return true;
	case 0xe0: case 0xe1: case 0xe2: case 0xe3:
		if (i->address_bytes == 2)
			system_exit(t);
		else
			counted_jump(t);
		return true;
	case 0xff: return group_ff(t);
	case 0xfa: interrupt_flag(t, false); return true;
	case 0xfb:
		if (!inline_sti(t))
			interrupt_flag(t, true);
		return true;
	case 0x90:
		if (!i->rep || t->engine->cpu_count == 1)
			return false;
		system_exit(t);
		return true;
	case 0x9c:
		if (!inline_pushf(t))
			system_exit(t);
		return true;
	case 0x9d:
		if (!inline_popf(t))
			system_exit(t);
		return true;
	case 0x8c:
		if (!inline_read_segment(t))
			system_exit(t);
		return true;
	case 0x8d: copy_lea(t); return true;
	case 0x06: case 0x07: case 0x0e: case 0x16: case 0x17: case 0x1e: case 0x1f: case 0x27: case 0x2f: case 0x37: case 0x3f:
	case 0x60: case 0x61: case 0x62: case 0x8e: case 0x8f: case 0x9a: case 0xa0: case 0xa1:
	case 0xa2: case 0xa3: case 0xc4: case 0xc5: case 0xc8: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xcf:
	case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xe4: case 0xe5: case 0xe6: case 0xe7: case 0xea: case 0xec: case 0xed:
	case 0xee: case 0xef: case 0xf1: case 0xf4: case 0xfc: case 0xfd:
		system_exit(t);
		return true;
	default:
		if (is_string(op) && inline_string(t))
			return true;
		if (is_string(op) || (op >= 0x50 && op <= 0x5f) || (op == 0x63 && t->code_bits != 64)) {
			system_exit(t);
			return true;
		}
		return false;
	}
}

static bool two_byte_special(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t op = i->opcode;

	if (op >= 0x80 && op <= 0x8f) {
		side_exit(t, op & 15, (after_insn(t) + i->imm) & t->rip_mask);
		return true;
	}
	switch (op) {
	case 0x0d: case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f:
		return true; /* hints: nothing a guest can see */
	case 0x31: read_time(t); return true;
	case 0xae:
		if (i->mod == 3 && !i->rep)
			return false; /* fences */
		if (i->mod != 3 && (i->reg == 2 || i->reg == 3 || i->reg == 7))
			return false;
		system_exit(t);
		return true;
	case 0xc7:
		if (i->reg == 1 || i->mod == 3)
			return false;
		system_exit(t);
		return true;
	case 0x01:
		if (i->mod == 3 && (i->reg & 7) == 1 && ((i->rm & 7) == 2 || (i->rm & 7) == 3) && inline_smap(t, (i->rm & 7) == 3))
			return true;
		if (i->mod == 3 && (i->reg & 7) == 7 && (i->rm & 7) == 0 && inline_swapgs(t))
			return true;
		system_exit(t);
		return true;
	case 0x00: case 0x02: case 0x03: case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0b: case 0x20:
	case 0x21: case 0x22: case 0x23: case 0x30: case 0x32: case 0x33: case 0x34: case 0x35: case 0xa0: case 0xa1: case 0xa2:
	case 0xa8: case 0xa9: case 0xb2: case 0xb4: case 0xb5: case 0xb9: case 0xf7: case 0xff:
		system_exit(t);
		return true;
	default:
		return false;
	}
}

bool soft_uses_fpu(const struct x86_insn *i)
{
	if (i->kind)
		return !(i->map >= 2 && i->opcode >= 0xf0); /* BMI */
	if (i->map == 0)
		return (i->opcode >= 0xd8 && i->opcode <= 0xdf) || i->opcode == 0x9b;
	if (i->map == 1 && i->opcode == 0xae)
		return i->mod != 3 && i->reg != 7;
	if (i->map == 1)
		return (i->opcode >= 0x10 && i->opcode <= 0x17) || (i->opcode >= 0x28 && i->opcode <= 0x2f) ||
		       (i->opcode >= 0x50 && i->opcode <= 0x7f) || (i->opcode == 0xc2) || (i->opcode >= 0xc4 && i->opcode <= 0xc6) ||
		       i->opcode >= 0xd0;
	return i->opcode < 0xf0;
}

static void translate_insn(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;

	if ((t->mode & MODE_FPU_OFF && soft_uses_fpu(i)) || (t->mode & MODE_AVX_OFF && i->kind && soft_uses_fpu(i)) || soft_is_scattered(i) || (!i->kind && i->map == 2 && i->opcode == 0x82)) {
		system_exit(t);
		return;
	}
	if (!x86_insn_has_memory(i) && (i->kind || i->map || i->opcode != 0x9c))
		want_flags(t);
	if (!i->kind && i->map == 0 && one_byte_special(t))
		return;
	if (!i->kind && i->map == 1 && two_byte_special(t))
		return;
	if (x86_insn_has_memory(i))
		copy_memory(t);
	else
		copy_registers(t);
}

/* ---- the cold part ------------------------------------------------------------------------------------------------------------- */

/* The test on the path also stops what ends just behind a page's begin without crossing it: that goes back. */
static void sort_out_crossing(struct translation *t, struct cold *c)
{
	struct host_mem last = c->ea;
	uint8_t *over, *crosses;

	over = c->from[1] ? emit_jmp(out(t)) : NULL;
	set_jump(c->crossing, out(t)->out);
	emit_lea(out(t), R11, c->ea);
	emit_rr(out(t), OP32(0x81), 4, R11);
	emit32(out(t), 4095);
	emit_rr(out(t), OP32(0x81), 7, R11);
	emit32(out(t), 4096u - c->bytes);
	crosses = emit_jcc(out(t), 7);
	last.disp += c->bytes - 1;
	emit_lea(out(t), R11, last);
	set_jump(emit_jmp(out(t)), c->lookup);
	set_jump(crosses, out(t)->out);
	if (over)
		set_jump(over, out(t)->out);
}

static void cold_memory(struct translation *t, struct cold *c)
{
	const struct x86_insn *i = &t->at->insn;
	bool exchange = !i->kind && i->map == 0 && (i->opcode & 0xfe) == 0x86;
	struct memory_site site = { .write = c->write, .locked = i->lock || exchange,
				    .stack = (!c->ea_in_r10 && c->ea.base == RSP) || (x86_insn_has_memory(i) && i->segment == X86_SS), .read = c->read, .bytes = c->bytes, .next_rip = c->next_rip };
	uint8_t *to_site, *bounce, *at_site;
	size_t copied = (size_t)(c->after - c->back);

	if (c->crossing)
		sort_out_crossing(t, c);
	if (!c->ea_in_r10)
		emit_lea(out(t), R10, c->ea);
	to_site = emit_lea_rip(out(t), R11);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_memory));
	align_data(t);
	at_site = out(t)->out;
	set_jump(to_site, at_site);
	out(t)->out += sizeof(site);
	bounce = out(t)->out;
	memcpy(bounce, c->back, copied);
	out(t)->out += copied;
	site.retry = (int32_t)(c->retry - at_site);
	site.bounce = (int32_t)(bounce - at_site);
	if (c->write) { /* flags and r11 may be results of the access */
		if (c->keeps_result)
			emit_save_flags(out(t), false);
		emit_store(out(t), R11, CPU(commit_r11));
		to_site = emit_lea_rip(out(t), R11);
		emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_commit));
		set_jump(to_site, out(t)->out);
		emit_load(out(t), R11, CPU(commit_r11));
		if (c->keeps_result || c->restores)
			emit_restore_flags(out(t));
	}
	set_jump(emit_jmp(out(t)), c->after);
	memcpy(at_site, &site, sizeof(site));
}

static void cold_chain(struct translation *t, struct cold *c)
{
	struct emitter *e = out(t);
	uint8_t *link = c->from[0], *to_link;

	if (c->kind == COLD_POLL) { /* backwards or to another page: look at the kick without touching flags */
		emit_mov(e, R11, RCX);
		emit_rm(e, OP32(0x8b), RCX, CPU(kick));
		emit8(e, 0x67), emit8(e, 0xe3);
		emit8(e, 0);
		uint8_t *calm = e->out;

		emit_mov(e, RCX, R11);
		if (!c->flags_in_word)
			emit_save_flags(e, true);
		emit_constant(e, R11, c->target);
		emit_store(e, R11, CPU(state.rip));
		emit_jmp_cpu(e, offsetof(struct soft_cpu, thunk_miss));
		calm[-1] = (uint8_t)(e->out - calm);
		emit_mov(e, RCX, R11);
		if (!same_page(t, c->target)) {
			if (!c->flags_in_word)
				emit_save_flags(e, true);
			exit_constant(t, c->target);
			return;
		}
		align_rel32(t, 1);
		link = emit_jmp(e);
		set_jump(link, e->out);
	}
	if (!c->flags_in_word)
		emit_save_flags(e, true);
	emit_constant(e, R11, c->target);
	emit_store(e, R11, CPU(state.rip));
	to_link = emit_lea_rip(e, R11);
	set_jump(to_link, link);
	emit_rm(e, OP32(0xc6), 0, CPU(temp[2]));
	emit8(e, c->flags_in_word);
	emit_jmp_cpu(e, offsetof(struct soft_cpu, thunk_chain));
}

static void add_map(struct translation *t, const struct guest_insn *g, bool in_word)
{
	struct soft_engine *e = t->engine;

	e->maps[e->map_count++] = (struct pc_map){ .host = (uint32_t)(out(t)->out - t->base), .guest = (uint16_t)(g->rip - t->insns[0].rip),
						   .length = (uint16_t)(g->insn.length | (in_word ? MAP_FLAGS_IN_WORD : 0)) };
}

/* ---- groups: accesses through one base register within one page --------------------------------------------------------------- */

enum { GROUP_BYTES = 256 };

struct group { unsigned insns, accesses; uint8_t base; bool write; int32_t low, high, offset; bool closed; };

/* Instructions that are copied as they are, and whose only general registers are those of their operands. */
static bool is_plain(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->lock || i->encoding.attributes & X86_ENC_VSIB || bit_string(i))
		return false;
	if (i->kind)
		return !(i->map == 1 && (op == 0xae || op == 0xf7)) && !(i->map == 2 && (op == 0x2c || op == 0x2d || op == 0x2e || op == 0x2f || op == 0x8c || op == 0x8e)) &&
		       !(i->map == 2 && op == 0xf6) && /* MULX: a destination in vvvv */
		       !(i->map == 3 && op >= 0x60 && op <= 0x63); /* string compares: RAX, RCX, RDX */
	if (i->map == 0)
		return (op < 0x40 && (op & 7) < 6) || op == 0x63 || op == 0x69 || op == 0x6b || op == 0x80 || op == 0x81 || op == 0x83 || op == 0x84 || op == 0x85 ||
		       (op >= 0x88 && op <= 0x8b) || op == 0xa8 || op == 0xa9 || (op >= 0xb0 && op <= 0xc1) || op == 0xc6 || op == 0xc7 || (op >= 0xd0 && op <= 0xd3) ||
		       ((op == 0xf6 || op == 0xf7) && i->reg < 4) || (op == 0xfe && i->reg < 2) || (op == 0xff && i->reg < 2);
	if (i->map == 1)
		return (op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) || (op >= 0x40 && op <= 0x76) || (op >= 0x7e && op <= 0x7f) || (op >= 0x90 && op <= 0x9f) ||
		       op == 0xaf || op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) || (op >= 0xd0 && op <= 0xf6) ||
		       (op >= 0xf8 && op <= 0xfe);
	return false;
}

/* Whether an operand of the instruction is this register, other than as base of its memory operand. */
static bool names(const struct x86_insn *i, uint8_t reg)
{
	uint16_t a = i->encoding.attributes;

	if (!i->kind && i->map == 0 && reg == RAX && (i->opcode < 0x40 ? (i->opcode & 7) >= 4 : (i->opcode & 0xfe) == 0xa8))
		return true;
	if (i->has_modrm && a & X86_ENC_REG_GPR && ((i->reg & 15) == reg || (!i->rex && (i->reg & 3) == reg)))
		return true;
	if (((a & X86_ENC_RM_GPR && i->has_modrm && i->mod == 3) || a & X86_ENC_OPCODE_GPR) && (i->rm == reg || (!i->rex && (i->rm & 3) == reg)))
		return true;
	return a & X86_ENC_VVVV_GPR && i->vvvv == reg;
}

static unsigned displaced_operands(const struct x86_insn *i)
{
	struct renaming r;

	collect(i, &r, true);
	return r.count;
}

static bool note_access(struct group *g, int32_t at, unsigned bytes, bool write)
{
	int32_t low = at < g->low || !g->accesses ? at : g->low, high = at + (int32_t)bytes > g->high || !g->accesses ? at + (int32_t)bytes : g->high;

	if (high - low > GROUP_BYTES)
		return false;
	g->low = low;
	g->high = high;
	g->write |= write;
	g->accesses++;
	return true;
}

/* ADD and SUB of a constant to the stack pointer. */
static bool moves_stack(const struct x86_insn *i, int32_t *ret_by)
{
	if (i->kind || i->map || !i->rex_w || i->mod != 3 || i->rm != RSP || (i->opcode != 0x81 && i->opcode != 0x83) || (i->reg != 0 && i->reg != 5) ||
	    (int64_t)i->imm > 128 || (int64_t)i->imm < -128)
		return false;
	*ret_by = i->reg ? -(int32_t)i->imm : (int32_t)i->imm;
	return true;
}

static bool join_stack(struct group *g, const struct x86_insn *i)
{
	uint8_t op = i->opcode;
	int32_t by;

	if (i->kind || i->map || i->prefix66)
		return false;
	if ((op >= 0x50 && op < 0x58) || op == 0x68 || op == 0x6a || op == 0xe8) {
		if (!note_access(g, g->offset - 8, 8, true))
			return false;
		g->offset -= 8;
		g->closed = op == 0xe8;
		return true;
	}
	if ((op >= 0x58 && op < 0x60 && i->rm != RSP) || op == 0xc3) {
		if (!note_access(g, g->offset, 8, false))
			return false;
		g->offset += 8;
		g->closed = op == 0xc3;
		return true;
	}
	if (moves_stack(i, &by)) {
		g->offset += by;
		return true;
	}
	return false;
}

static bool join(struct translation *t, struct group *g, const struct x86_insn *i)
{
	if (t->mode & MODE_FPU_OFF && soft_uses_fpu(i))
		return false;
	if (g->base == RSP && join_stack(g, i))
		return true;
	if (!i->kind && ((i->map == 0 && i->opcode >= 0x70 && i->opcode <= 0x7f) || (i->map == 1 && i->opcode >= 0x80 && i->opcode <= 0x8f)))
		return true; /* a side exit needs nothing of ours */
	if (!i->kind && i->map == 0 && i->opcode == 0x8d)
		return i->reg != g->base && (i->base >= 16 || !displaced(i->base)) && (i->index >= 16 || !displaced(i->index));
	if (!is_plain(i) || displaced_operands(i) > 1)
		return false;
	if (!x86_insn_has_memory(i))
		return !names(i, g->base);
	if (i->base != g->base || !i->mem_bytes || !simple_address(t, i, i->mem_bytes) || i->disp > 4096 || i->disp < -4096)
		return false;
	if (!note_access(g, g->offset + i->disp, i->mem_bytes, i->encoding.attributes & X86_ENC_MEM_WRITE))
		return false;
	g->closed = names(i, g->base);
	return true;
}

static uint8_t group_base(const struct translation *t, const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (!i->kind && !i->map && !i->prefix66 && ((op >= 0x50 && op < 0x60) || op == 0x68 || op == 0x6a))
		return RSP;
	return x86_insn_has_memory(i) && i->base < 16 && !displaced(i->base) && is_plain(i) && !(t->mode & MODE_AVX_OFF && i->kind) ? i->base : NO_REG;
}

/* The group that begins with instruction n; one of fewer than two accesses is none. */
static struct group find_group(struct translation *t, unsigned n)
{
	struct group g = { .base = group_base(t, &t->insns[n].insn) }, good = { 0 };

	if (g.base == NO_REG || t->code_bits != 64 || t->mode & BLOCK_ALONE || t->cold_count + 3 * MAX_INSNS > MAX_COLD)
		return good;
	while (n + g.insns < t->count && !g.closed) {
		unsigned before = g.accesses;

		if (!join(t, &g, &t->insns[n + g.insns].insn))
			break;
		g.insns++;
		if (g.accesses != before)
			good = g; /* what follows the last access gains nothing */
	}
	return good.accesses >= 2 ? good : (struct group){ 0 };
}

/* One lookup for all; what fails it is done one by one in the cold part. */
static struct cold *open_group(struct translation *t, const struct group *g)
{
	struct cold *c, *lookup;

	leave_flags(t);
	lookup = emit_lookup(t, mem(g->base, g->low), false, (unsigned)(g->high - g->low), true, g->write);
	c = lookup;
	c->kind = COLD_GROUP;
	c->insns = (uint16_t)g->insns;
	c->host_flags = t->host_flags;
	c->word_flags = t->word_flags;
	c->from[0] = c->crossing;
	t->grouped = true;
	return c;
}

static void close_group(struct translation *t, struct cold *c)
{
	t->grouped = false;
	c->after = out(t)->out;
	c->end_host_flags = t->host_flags;
	c->end_word_flags = t->word_flags;
}

/* Where the flags are behind the instruction. */
static void follow_flags(struct translation *t)
{
	struct guest_insn *g = t->at;

	if (!t->flags_set && (g->insn.encoding.flags_written || !g->live_in)) {
		t->host_flags = true;
		t->word_flags = false;
	}
	if (t->word_flags && !t->host_flags && !t->flags_set)
		t->engine->maps[t->engine->map_count - 1].length |= MAP_FLAGS_IN_WORD;
}

/* The group's instructions one by one, with a lookup each. */
static void cold_group(struct translation *t, struct cold *c)
{
	const struct cold g = *c;

	t->host_flags = g.host_flags;
	t->word_flags = g.word_flags;
	t->ended = false;
	for (unsigned n = g.insn; n < g.insn + g.insns && !t->ended; n++) {
		t->at = &t->insns[n];
		add_map(t, t->at, false);
		t->flags_set = false;
		translate_insn(t);
		follow_flags(t);
	}
	if (t->ended)
		return;
	if (g.end_word_flags && !t->word_flags)
		emit_save_flags(out(t), true);
	if (g.end_host_flags && !t->host_flags)
		emit_restore_flags(out(t));
	set_jump(emit_jmp(out(t)), g.after);
}

static void cold_part(struct translation *t)
{
	for (unsigned n = 0; n < t->cold_count; n++) {
		struct cold *c = &t->cold[n];

		t->at = &t->insns[c->insn];
		add_map(t, t->at, c->flags_in_word);
		for (int k = 0; k < 8; k++)
			if (c->from[k])
				set_jump(c->from[k], out(t)->out);
		if (c->kind == COLD_MEMORY)
			cold_memory(t, c);
		else if (c->kind == COLD_SYSTEM)
			leave_for_system(t, c);
		else if (c->kind == COLD_GROUP)
			cold_group(t, c);
		else
			cold_chain(t, c);
	}
}

/* ---- a block -------------------------------------------------------------------------------------------------------------------- */

static bool ends_block(const struct x86_insn *i, unsigned code_bits)
{
	if (i->kind || i->map > 1)
		return false;
	if (i->map == 0) {
		switch (i->opcode) {
		case 0xe8: case 0xe9: case 0xeb: case 0xc2: case 0xc3: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xcf: case 0xea:
		case 0x9a: case 0xf4:
			return true;
		case 0xff: return i->reg >= 2 && i->reg <= 5;
		default: return code_bits != 64 && i->opcode == 0x9a;
		}
	}
	return i->opcode == 0x05 || i->opcode == 0x07 || i->opcode == 0x0b || i->opcode == 0x35 || i->opcode == 0x34 || i->opcode == 0x22;
}

/* Reads the block's instructions; 0, or a fault when not even the first can be read. */
static int gather(struct translation *t, struct fault *fault)
{
	uint64_t rip = t->cpu->state.rip;

	while (t->count < (t->mode & BLOCK_ALONE ? 1u : MAX_INSNS)) {
		struct guest_insn *g = &t->insns[t->count];
		uint64_t linear = t->cs_base + rip;
		size_t left = PAGE_BYTES - (linear & (PAGE_BYTES - 1)), have = left < 15 ? left : 15;
		int error;

		if (linear >> 12 != t->page)
			break;
		error = soft_read(t->cpu, linear, g->raw, have, ACCESS_EXEC, fault);
		if (error)
			return t->count ? 0 : error;
		error = x86_decode(g->raw, have, t->code_bits, &g->insn);
		if (error == -EAGAIN) {
			t->next_straddles = t->count;
			if (t->count)
				break;
			error = soft_read(t->cpu, linear + have, g->raw + have, 15 - have, ACCESS_EXEC, fault);
			if (error)
				return error;
			error = x86_decode(g->raw, 15, t->code_bits, &g->insn);
			t->mode |= BLOCK_ALONE; /* straddles: alone, and never chained */
		}
		if (error) {
			if (t->count)
				break;
			*fault = (struct fault){ .vector = error == -E2BIG ? EXC_GP : EXC_UD, .has_code = error == -E2BIG };
			return -EFAULT;
		}
		g->rip = rip;
		rip = (rip + g->insn.length) & t->rip_mask;
		t->count++;
		if (ends_block(&g->insn, t->code_bits))
			break;
	}
	return 0;
}

static bool may_keep_flags(const struct x86_insn *i)
{
	if (i->kind)
		return false;
	if (i->map == 0 && (i->opcode & 0xfe) == 0xc0)
		return !(i->imm & (i->rex_w && i->opcode & 1 ? 63 : 31));
	if (i->map == 0) /* multiplications leave some flags as they were; so do shifts by zero */
		return i->opcode == 0x69 || i->opcode == 0x6b || ((i->opcode & 0xfe) == 0xf6 && i->reg >= 4) || i->opcode == 0xd2 || i->opcode == 0xd3 || is_string(i->opcode);
	return i->map == 1 && (i->opcode == 0xaf || i->opcode == 0xbc || i->opcode == 0xbd || bit_string(i) || i->opcode == 0xba || i->opcode == 0xa4 || i->opcode == 0xa5 || i->opcode == 0xac || i->opcode == 0xad);
}

static void find_live_flags(struct translation *t)
{
	uint8_t live = X86_ALL_FLAGS;

	for (unsigned n = t->count; n-- > 0;) {
		struct guest_insn *g = &t->insns[n];
		const struct x86_insn *i = &g->insn;
		bool jump = !i->kind && ((i->map == 0 && ((i->opcode >= 0x70 && i->opcode <= 0x7f) || (i->opcode >= 0xe0 && i->opcode <= 0xe3))) ||
					 (i->map == 1 && i->opcode >= 0x80 && i->opcode <= 0x8f));

		if (jump) {
			g->needs_flags = true;
			live = X86_ALL_FLAGS;
		} else {
			uint8_t kept = may_keep_flags(i) ? live : live & (uint8_t)~i->encoding.flags_written;

			g->needs_flags = i->encoding.flags_read || (i->encoding.flags_written && kept);
			live = kept | i->encoding.flags_read;
		}
		g->live_in = live;
	}
}

static void emit_entries(struct translation *t)
{
	struct emitter *e = out(t);

	while (((uintptr_t)e->out + 4) & 15)
		emit8(e, 0xcc);
	emit32(e, (uint32_t)(t->block - t->engine->blocks)); /* block_at() */
	t->base = e->out;
	t->block->host_offset = (uint32_t)(e->out - t->engine->code_write);
	if (t->insns[0].live_in)
		emit_restore_flags(e);
	else
		for (int n = 0; n < 8; n++)
			emit8(e, "\x0f\x1f\x84\x00\x00\x00\x00\x00"[n]);
	while ((uintptr_t)e->out & 15)
		emit8(e, 0x90);
	t->block->direct_offset = (uint32_t)(e->out - t->engine->code_write);
	for (int n = 0; n < 5; n++) /* replace_entry() */
		emit8(e, "\x0f\x1f\x44\x00\x00"[n]);
}

/* Where patched entries lead (soft_invalidate): +0 from the direct entry, +the second part from the indirect one. */
static void emit_stub(struct translation *t)
{
	struct emitter *e = out(t);

	t->block->stub_offset = (uint32_t)(e->out - t->engine->code_write);
	emit_save_flags(e, true);
	exit_constant(t, t->insns[0].rip);
}

struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode, struct fault *fault)
{
	static _Thread_local struct translation t;
	struct soft_engine *e = cpu->engine;
	struct block *b = &e->blocks[e->block_count];
	struct cold *group = NULL;
	unsigned group_end = 0;
	uint8_t *start;

	memset(&t, 0, offsetof(struct translation, insns));
	t.count = t.cold_count = 0;
	t.r10_end = NULL;
	t.ended = t.next_straddles = t.word_flags = false;
	t.host_flags = true;
	t.cpu = cpu;
	t.engine = e;
	t.mode = mode;
	t.code_bits = cpu->state.code_bits;
	t.flat = !(t.mode & MODE_NOT_FLAT);
	t.cs_base = t.code_bits == 64 ? 0 : cpu->state.segment[X86_CS].base;
	t.rip_mask = t.code_bits == 64 ? ~0ull : 0xffffffffu;
	t.page = (t.cs_base + cpu->state.rip) >> 12;
	if (gather(&t, fault))
		return NULL;
	find_live_flags(&t);
	memset(b, 0, sizeof(*b));
	b->gva = cpu->state.rip;
	b->gpa = gpa;
	b->mode = mode;
	b->map_first = e->map_count;
	b->guest_bytes = (uint16_t)(t.insns[t.count - 1].rip + t.insns[t.count - 1].insn.length - b->gva);
	t.block = b;
	start = t.e.out = e->code_write + e->code_used;
	emit_entries(&t);
	for (unsigned n = 0; n < t.count && !t.ended; n++) {
		t.at = &t.insns[n];
		if (!group) {
			struct group g = find_group(&t, n);

			group_end = n + g.insns;
			group = g.insns ? open_group(&t, &g) : NULL;
		}
		add_map(&t, t.at, false);
		t.flags_set = false;
		translate_insn(&t);
		follow_flags(&t);
		if (group && n + 1 == group_end) {
			close_group(&t, group);
			group = NULL;
		}
	}
	if (!t.ended && t.next_straddles) {
		save_flags(&t);
		exit_constant(&t, after_insn(&t));
	} else if (!t.ended) {
		exit_direct(&t, after_insn(&t));
	}
	b->maps = (uint16_t)(e->map_count - b->map_first);
	b->host_bytes = (uint32_t)(t.e.out - t.base);
	e->code_used += (size_t)(t.e.out - start);
	b->cold_offset = (uint32_t)e->cold_used;
	t.base = start = t.e.out = e->code_write + e->cold_used;
	cold_part(&t);
	emit_stub(&t);
	b->cold_maps = (uint16_t)(e->map_count - b->map_first - b->maps);
	b->cold_bytes = (uint32_t)(t.e.out - start);
	e->cold_used += b->cold_bytes;
	__atomic_store_n(&e->block_count, e->block_count + 1, __ATOMIC_RELEASE);
	cpu->translations++;
	if ((((t.cs_base + b->gva) & 4095) + b->guest_bytes) > 4096)
		b->mode |= BLOCK_STRADDLES;
	return b;
}
