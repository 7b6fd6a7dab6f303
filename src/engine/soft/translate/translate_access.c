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

/*
 * ---- addresses
 * -------------------------------------------------------------------------------------------------
 */

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

uint64_t translate_after_insn(const struct translation *t)
{
	return (t->at->rip + t->at->insn.length) & t->rip_mask;
}

/* reg = the effective address, without the segment base. Uses r11 for a displaced index. */
void emit_address(struct translation *t, const struct x86_insn *i, uint8_t reg)
{
	struct host_mem m = {
		.base = i->base, .index = i->index, .scale_log2 = i->scale_log2, .disp = i->disp
	};
	struct host_op lea = i->address_bytes == 8 ? OP64(0x8d) : OP32(0x8d);

	if (i->base == X86_RIP) {
		uint64_t value = translate_after_insn(t) + (uint64_t)(int64_t)i->disp;

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

		emit_constant(out(t), reg, value & soft_address_mask(i->address_bytes));
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

void emit_linear(struct translation *t, const struct x86_insn *i)
{
	emit_address(t, i, R10);
	emit_segment_base(t, i);
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
 * The lookup: afterwards r11 is (host - guest) + 1 of the page of ea. flags_live: saved before, to
 * be restored by the caller between the returned cold's `back` and its access.
 */
struct cold *emit_lookup(struct translation *t, struct host_mem ea, bool in_r10, unsigned bytes,
			 bool read, bool write)
{
	struct emitter *e = out(t);
	struct cold *c;
	uint8_t table = write ? R14 : R15;
	unsigned span = 1;
	unsigned unit = access_unit_bytes(&t->at->insn, write);

	if (t->grouped)
		return &t->no_cold;
	c = translate_new_cold(t, COLD_MEMORY);
	while (span < bytes)
		span *= 2;
	c->ea = ea;
	c->ea_in_r10 = in_r10;
	c->bytes = (uint16_t)bytes;
	c->unit_bytes = (uint16_t)unit;
	c->read = read;
	c->write = write;
	ea.disp += (int32_t)bytes - 1;
	emit_lea(e, R11, ea);
	if (bytes > 1) {
		emit_rr(e, OP32(0xf7), 0, R11);
		emit32(e, (unit - 1) & ~(span - 1));
		c->crossing = emit_jcc(e, CC_Z);
	}
	c->lookup = e->out;
	emit_rr(e,
		(struct host_op){ .kind = X86_KIND_VEX128,
				  .map = 2,
				  .opcode = 0xf7,
				  .w = true,
				  .vvvv = table },
		R11, R11);
	emit_load(e, R11,
		  (struct host_mem){ .base = table,
				     .index = R11,
				     .scale_log2 = 3,
				     .disp = -(int32_t)TABLE_BIAS });
	emit_rr(e, OP32(0xf6), 0, R11);
	emit8(e, 1);
	c->from[1] = emit_jcc(e, CC_Z);
	emit_unpoison(e, R11);
	c->back = e->out;
	return c;
}
