/* Flags, addresses, and the lookup in front of every access of translated code (docs/engine.md). */
#include "engine/soft/insn/address.h"
#include "translate_internal.h"

struct cold *translate_new_cold(struct translation *t, int kind)
{
	struct cold *c = &t->cold[t->cold_count++];

	memset(c, 0, sizeof(*c));
	c->kind = kind;
	c->insn = (uint16_t)(t->at - t->insns);
	c->flags_in_word = t->word_flags;
	return c;
}

void translate_save_flags(struct translation *t)
{
	if (!t->word_flags)
		emit_save_flags(out(t), true);
	t->word_flags = true;
}

/*
 * Before code of ours that changes the host's flags; r10 is free. They come back when somebody
 * needs them, not before.
 */
void translate_leave_flags(struct translation *t)
{
	if (!t->at->live_in || t->grouped)
		return;
	translate_save_flags(t);
	t->host_flags = false;
}

/* Before the guest's instruction itself. */
void translate_want_flags(struct translation *t)
{
	if (t->at->needs_flags && !t->host_flags) {
		emit_restore_flags(out(t));
		t->host_flags = true;
	}
}

void translate_end_access(struct translation *t, struct cold *c)
{
	c->after = out(t)->out;
	c->keeps_result = t->at->insn.encoding.flags_written;
	c->restores = t->host_flags && t->at->live_in;
	c->flags_in_word = t->word_flags && !t->host_flags && !t->at->insn.encoding.flags_written;
}

/* ---- addresses ---- */

static bool needs_segment_base(const struct translation *t, const struct x86_insn *i)
{
	if (i->segment == X86_FS || i->segment == X86_GS)
		return true;
	return t->code_bits != 64 && !t->flat;
}

bool translate_simple_address(const struct translation *t, const struct x86_insn *i, unsigned bytes)
{
	return t->code_bits == 64 && i->address_bytes == 8 && i->base < 16 && !displaced(i->base) &&
	       i->index == X86_NO_REGISTER && !needs_segment_base(t, i) &&
	       (int64_t)i->disp + bytes < INT32_MAX && i->disp > INT32_MIN + 1;
}

/* Base and index in their own registers: a lookup leaves r10, and r11 takes the base's place. */
bool translate_indexed_address(const struct translation *t, const struct x86_insn *i,
			       unsigned bytes)
{
	return t->code_bits == 64 && i->address_bytes == 8 && i->index < 16 &&
	       !displaced(i->index) && (i->base == X86_NO_REGISTER || i->base < 16) &&
	       !(i->base < 16 && displaced(i->base)) && !needs_segment_base(t, i) &&
	       (int64_t)i->disp + bytes < INT32_MAX;
}

/* A constant address, as far as it lies within its page, which is known. */
static bool is_within_page(const struct translation *t, const struct x86_insn *i, unsigned bytes)
{
	uint64_t at = translate_after_insn(t) + (uint64_t)(int64_t)i->disp;

	return i->base == X86_RIP && i->address_bytes == 8 && !needs_segment_base(t, i) &&
	       (at & PAGE_OFFSET_MASK) + bytes <= PAGE_BYTES;
}

/* Of a jump or call by displacement. */
uint64_t translate_jump_target(const struct translation *t, const struct guest_insn *g)
{
	return (g->rip + g->insn.length + g->insn.imm) & t->rip_mask;
}

uint64_t translate_after_insn(const struct translation *t)
{
	return (t->at->rip + t->at->insn.length) & t->rip_mask;
}

void emit_rip(struct translation *t, uint8_t reg, uint64_t value)
{
	int64_t left = (int64_t)(value - (t->rip & ~(uint64_t)PAGE_OFFSET_MASK));

	if (!soft_floats(t->mode)) {
		emit_constant(out(t), reg, value);
		return;
	}
	emit_load(out(t), reg, CPU(code_page));
	while (left) {
		int32_t step = (int32_t)left;

		/* two GiB and a page away at most */
		if (left != step)
			step = left < 0 ? INT32_MIN : INT32_MAX;
		emit_lea(out(t), reg, mem(reg, step));
		left -= step;
	}
}

/*
 * reg = so many bytes of the effective address, without the segment base. Uses r11 for a displaced
 * index.
 */
void emit_address(struct translation *t, const struct x86_insn *i, uint8_t reg, unsigned bytes)
{
	struct host_mem m = {
		.base = i->base, .index = i->index, .scale_log2 = i->scale_log2, .disp = i->disp
	};
	struct host_op lea = bytes == 8 ? OP64(0x8d) : OP32(0x8d);

	if (i->base == X86_RIP) {
		uint64_t value = translate_after_insn(t) + (uint64_t)(int64_t)i->disp;

		if (bytes != 8 && !soft_floats(t->mode))
			value = (uint32_t)value;
		emit_rip(t, reg, value);
		if (bytes != 8 && soft_floats(t->mode))
			emit_rr(out(t), OP32(0x89), reg, reg);
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

		value &= soft_address_mask(i->address_bytes);
		emit_constant(out(t), reg, value & soft_address_mask(bytes));
		return;
	}
	emit_rm(out(t), lea, reg, m);
	if (i->address_bytes == 2)
		emit_rr(out(t), (struct host_op){ .map = 1, .opcode = 0xb7 }, reg, reg);
}

/* r10, the effective address, becomes the linear one. Uses r11. */
void emit_segment_base(struct translation *t, const struct x86_insn *i)
{
	size_t base = offsetof(struct soft_cpu, state.segment) +
		      i->segment * sizeof(struct x86_segment_state) +
		      offsetof(struct x86_segment_state, base);

	if (!needs_segment_base(t, i))
		return;
	emit_load(out(t), R11, cpu_mem(base));
	emit_rm(out(t), t->code_bits == 64 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11 });
}

enum address_place emit_linear(struct translation *t, const struct x86_insn *i, unsigned bytes)
{
	emit_address(t, i, R10, i->address_bytes);
	emit_segment_base(t, i);
	return is_within_page(t, i, bytes) ? IN_R10_WITHIN_PAGE : IN_R10;
}

/*
 * What an access may not cross to be the host's own. A locked one that crosses a cache line stops
 * every processor of the host; it is done with this machine's other processors standing still
 * instead (soft_memory()).
 */
static unsigned access_unit_bytes(const struct x86_insn *i, bool write)
{
	return write && x86_insn_is_locked(i) ? CACHE_LINE_BYTES : PAGE_BYTES;
}

/*
 * Whether an access that crosses its page reaches nothing past a branch that was mispredicted,
 * either. What is read of the frame beside can be told; of a wide access that is much of it. Others
 * are bounded where the guest is told of no immunity (docs/speculation.md).
 */
static bool is_bounded(const struct translation *t, const struct cold *c)
{
	enum { NARROW_BYTES = 8 };

	return (c->read && c->bytes > NARROW_BYTES) || t->engine->bounds_all;
}

/* The entry of the page of an address. */
void emit_entry_to(struct translation *t, uint8_t to, uint8_t address, bool write)
{
	static const struct host_op bextr = {
		.kind = X86_KIND_VEX128, .map = 2, .opcode = 0xf7, .w = true
	};
	uint8_t table = write ? R14 : R15;
	struct host_op op = bextr;

	op.vvvv = table;
	emit_rr(out(t), op, to, address);
	emit_load(out(t), to,
		  (struct host_mem){ .base = table,
				     .index = to,
				     .scale_log2 = 3,
				     .disp = -(int32_t)TABLE_BIAS });
}

/* In r11. */
void emit_entry(struct translation *t, uint8_t address, bool write)
{
	emit_entry_to(t, R11, address, write);
}

static void branch_if_absent(struct translation *t, struct cold *c)
{
	emit_rr(out(t), OP32(0xf6), 0, R11);
	emit8(out(t), 1);
	c->from[1] = emit_jcc(out(t), CC_Z);
}

void emit_cmov(struct emitter *e, uint8_t cc, uint8_t to, uint8_t from)
{
	const struct host_op cmov = { .map = 1, .opcode = 0x40 | cc, .w = true };

	emit_rr(e, cmov, to, from);
}

void emit_drop_entry(struct translation *t, uint8_t cc) { emit_cmov(out(t), cc, R11, R15); }

/*
 * Whether the entry in r11 is one, and the access, whose last byte is at r10, within a page, in one
 * branch: the low 12 bits of an entry are ones, those of none zeros. May jump for one that begins
 * with the page; so does r10 & mask.
 */
static void branch_once(struct translation *t, struct cold *c, uint32_t mask)
{
	if (is_bounded(t, c)) {
		emit_rr(out(t), OP32(0xf7), 0, R10);
		emit32(out(t), mask);
		emit_drop_entry(t, CC_Z);
		branch_if_absent(t, c);
	} else {
		emit_rr(out(t), OP32(0x21), R11, R10);
		emit_rr(out(t), OP32(0xf7), 0, R10);
		emit32(out(t), mask);
		c->from[1] = emit_jcc(out(t), CC_Z);
	}
	c->one_branch = true;
	c->lookup = out(t)->out;
}

/*
 * The lookup: afterwards r11 is host - guest of the page of ea. flags_live: saved before, to be
 * restored by the caller between the returned cold's `back` and its access. Uses r10 where that
 * does not hold the address.
 */
struct cold *emit_lookup(struct translation *t, struct host_mem ea, enum address_place place,
			 unsigned bytes, bool read, bool write)
{
	struct emitter *e = out(t);
	struct host_mem last = ea;
	struct cold *c;
	unsigned span = 1;
	unsigned unit = access_unit_bytes(&t->at->insn, write);
	uint32_t mask;

	if (t->grouped)
		return &t->no_cold;
	c = translate_new_cold(t, COLD_MEMORY);
	while (span < bytes)
		span *= 2;
	mask = (unit - 1) & ~(span - 1);
	c->ea = ea;
	c->ea_in_r10 = place != IN_REGISTERS;
	c->bytes = (uint16_t)bytes;
	c->unit_bytes = (uint16_t)unit;
	c->read = read;
	c->write = write;
	last.disp += (int32_t)bytes - 1;
	if (place == IN_REGISTERS) {
		emit_lea(e, R10, last);
		emit_entry(t, R10, write);
		if (bytes > 1)
			branch_once(t, c, mask);
		else
			branch_if_absent(t, c);
	} else if (bytes > 1 && (place == IN_R10 || unit < PAGE_BYTES)) {
		emit_lea(e, R11, last);
		emit_rr(e, OP32(0xf7), 0, R11);
		emit32(e, mask);
		c->crossing = emit_jcc(e, CC_Z);
		if (is_bounded(t, c))
			emit_cmov(e, CC_Z, R10, R11); /* of its last byte on, all in one page */
		c->lookup = e->out;
		emit_entry(t, R11, write);
		branch_if_absent(t, c);
	} else {
		emit_entry(t, R10, write);
		branch_if_absent(t, c);
	}
	emit_unpoison(e, R11);
	c->back = e->out;
	return c;
}
