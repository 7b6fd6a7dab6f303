/* Flags, addresses, and the lookup in front of every access of translated code (docs/engine.md). */
#include <assert.h>

#include "engine/soft/insn/address.h"
#include "translate_internal.h"

struct cold *translate_new_cold(struct translation *translation, int kind)
{
	struct cold *cold = &translation->cold[translation->cold_count++];

	assert(translation->cold_count <= MAX_COLD);
	memset(cold, 0, sizeof(*cold));
	cold->kind = kind;
	cold->insn = (uint16_t)(translation->at - translation->insns);
	cold->flags_in_word = translation->word_flags;
	return cold;
}

void translate_save_flags(struct translation *translation)
{
	if (!translation->word_flags)
		emit_save_flags(out(translation), true);
	translation->word_flags = true;
}

/*
 * Before code of ours that changes the host's flags; r10 is free. They come back when somebody
 * needs them, not before.
 */
void translate_leave_flags(struct translation *translation)
{
	if (!translation->at->live_in || translation->grouped)
		return;
	translate_save_flags(translation);
	translation->host_flags = false;
}

/* Before the guest's instruction itself. */
void translate_want_flags(struct translation *translation)
{
	if (translation->at->needs_flags && !translation->host_flags) {
		emit_restore_flags(out(translation));
		translation->host_flags = true;
	}
}

void translate_end_access(struct translation *translation, struct cold *cold)
{
	cold->after = out(translation)->out;
	cold->keeps_result = translation->at->insn.encoding.flags_written;
	cold->restores = translation->host_flags && translation->at->live_in;
	cold->flags_in_word = translation->word_flags && !translation->host_flags &&
			      !translation->at->insn.encoding.flags_written;
}

/* ---- addresses ---- */

static bool needs_segment_base(const struct translation *translation, const struct x86_insn *insn)
{
	if (insn->segment == X86_FS || insn->segment == X86_GS)
		return true;
	return translation->code_bits != 64 && !translation->flat;
}

bool translate_simple_address(const struct translation *translation, const struct x86_insn *insn,
			      unsigned bytes)
{
	return translation->code_bits == 64 && insn->address_bytes == 8 && insn->base < 16 &&
	       !displaced(insn->base) && insn->index == X86_NO_REGISTER &&
	       !needs_segment_base(translation, insn) && (int64_t)insn->disp + bytes < INT32_MAX &&
	       insn->disp > INT32_MIN + 1;
}

/* Base and index in their own registers: a lookup leaves r10, and r11 takes the base's place. */
bool translate_indexed_address(const struct translation *translation, const struct x86_insn *insn,
			       unsigned bytes)
{
	return translation->code_bits == 64 && insn->address_bytes == 8 && insn->index < 16 &&
	       !displaced(insn->index) && (insn->base == X86_NO_REGISTER || insn->base < 16) &&
	       !(insn->base < 16 && displaced(insn->base)) &&
	       !needs_segment_base(translation, insn) && (int64_t)insn->disp + bytes < INT32_MAX;
}

/* A constant address, as far as it lies within its page, which is known. */
static bool is_within_page(const struct translation *translation, const struct x86_insn *insn,
			   unsigned bytes)
{
	uint64_t at = translate_after_insn(translation) + (uint64_t)(int64_t)insn->disp;

	return insn->base == X86_RIP && insn->address_bytes == 8 &&
	       !needs_segment_base(translation, insn) &&
	       (at & PAGE_OFFSET_MASK) + bytes <= PAGE_BYTES;
}

/* Of a jump or call by displacement. */
uint64_t translate_jump_target(const struct translation *translation,
			       const struct guest_insn *guest_insn)
{
	return (guest_insn->rip + guest_insn->insn.length + guest_insn->insn.imm) &
	       translation->rip_mask;
}

uint64_t translate_after_insn(const struct translation *translation)
{
	return (translation->at->rip + translation->at->insn.length) & translation->rip_mask;
}

void emit_rip(struct translation *translation, uint8_t reg, uint64_t value)
{
	int64_t left = (int64_t)(value - (translation->rip & ~(uint64_t)PAGE_OFFSET_MASK));

	if (!soft_floats(translation->mode)) {
		emit_constant(out(translation), reg, value);
		return;
	}
	emit_load(out(translation), reg, CPU(code_page));
	while (left) {
		int32_t step = (int32_t)left;

		/* two GiB and a page away at most */
		if (left != step)
			step = left < 0 ? INT32_MIN : INT32_MAX;
		emit_lea(out(translation), reg, mem(reg, step));
		left -= step;
	}
}

/*
 * reg = so many bytes of the effective address, without the segment base. Uses r11 for a displaced
 * index.
 */
void emit_address(struct translation *translation, const struct x86_insn *insn, uint8_t reg,
		  unsigned bytes)
{
	struct host_mem address = { .base = insn->base,
				    .index = insn->index,
				    .scale_log2 = insn->scale_log2,
				    .disp = insn->disp };
	struct host_op lea = bytes == 8 ? OP64(0x8d) : OP32(0x8d);

	if (insn->base == X86_RIP) {
		uint64_t value = translate_after_insn(translation) + (uint64_t)(int64_t)insn->disp;

		if (bytes != 8 && !soft_floats(translation->mode))
			value = (uint32_t)value;
		emit_rip(translation, reg, value);
		if (bytes != 8 && soft_floats(translation->mode))
			emit_rr(out(translation), OP32(0x89), reg, reg);
		return;
	}
	if (insn->base < 16 && displaced(insn->base)) {
		emit_load(out(translation), R10, slot(insn->base));
		address.base = R10;
	}
	if (insn->index < 16 && displaced(insn->index)) {
		emit_load(out(translation), R11, slot(insn->index));
		address.index = R11;
	}
	if (address.base == NO_REG && address.index == NO_REG) {
		uint64_t value = (uint64_t)(int64_t)insn->disp;

		value &= soft_address_mask(insn->address_bytes);
		emit_constant(out(translation), reg, value & soft_address_mask(bytes));
		return;
	}
	emit_rm(out(translation), lea, reg, address);
	if (insn->address_bytes == 2)
		emit_rr(out(translation), (struct host_op){ .map = 1, .opcode = 0xb7 }, reg, reg);
}

/* r10, the effective address, becomes the linear one. Uses r11. */
void emit_segment_base(struct translation *translation, const struct x86_insn *insn)
{
	size_t base = offsetof(struct soft_cpu, state.segment) +
		      insn->segment * sizeof(struct x86_segment_state) +
		      offsetof(struct x86_segment_state, base);

	if (!needs_segment_base(translation, insn))
		return;
	emit_load(out(translation), R11, cpu_mem(base));
	emit_rm(out(translation), translation->code_bits == 64 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11 });
}

enum address_place emit_linear(struct translation *translation, const struct x86_insn *insn,
			       unsigned bytes)
{
	emit_address(translation, insn, R10, insn->address_bytes);
	emit_segment_base(translation, insn);
	return is_within_page(translation, insn, bytes) ? IN_R10_WITHIN_PAGE : IN_R10;
}

/*
 * What an access may not cross to be the host's own. A locked one that crosses a cache line stops
 * every processor of the host; it is done with this machine's other processors standing still
 * instead (soft_memory()).
 */
static unsigned access_unit_bytes(const struct x86_insn *insn, bool write)
{
	return write && x86_insn_is_locked(insn) ? CACHE_LINE_BYTES : PAGE_BYTES;
}

/*
 * Whether an access that crosses its page reaches nothing past a branch that was mispredicted,
 * either. What is read of the frame beside can be told; of a wide access that is much of it. Others
 * are bounded where the guest is told of no immunity (docs/speculation.md).
 */
static bool is_bounded(const struct translation *translation, const struct cold *cold)
{
	enum { NARROW_BYTES = 8 };

	return (cold->read && cold->bytes > NARROW_BYTES) || translation->engine->bounds_all;
}

/* The entry of the page of an address. */
void emit_entry_to(struct translation *translation, uint8_t to, uint8_t address, bool write)
{
	static const struct host_op bextr = {
		.kind = X86_KIND_VEX128, .map = 2, .opcode = 0xf7, .rex_w = true
	};
	uint8_t table = write ? R14 : R15;
	struct host_op op = bextr;

	op.vvvv = table;
	emit_rr(out(translation), op, to, address);
	emit_load(out(translation), to,
		  (struct host_mem){ .base = table,
				     .index = to,
				     .scale_log2 = 3,
				     .disp = -(int32_t)TABLE_BIAS });
}

/* In r11. */
void emit_entry(struct translation *translation, uint8_t address, bool write)
{
	emit_entry_to(translation, R11, address, write);
}

static void branch_if_absent(struct translation *translation, struct cold *cold)
{
	emit_rr(out(translation), OP32(0xf6), 0, R11);
	emit8(out(translation), 1);
	cold->from[1] = emit_jcc(out(translation), CC_Z);
}

void emit_cmov(struct emitter *emitter, uint8_t cc, uint8_t to, uint8_t from)
{
	const struct host_op cmov = { .map = 1, .opcode = 0x40 | cc, .rex_w = true };

	emit_rr(emitter, cmov, to, from);
}

void emit_drop_entry(struct translation *translation, uint8_t cc)
{
	emit_cmov(out(translation), cc, R11, R15);
}

/*
 * Whether the entry in r11 is one, and the access, whose last byte is at r10, within a page, in one
 * branch: the low 12 bits of an entry are ones, those of none zeros. May jump for one that begins
 * with the page; so does r10 & mask.
 */
static void branch_once(struct translation *translation, struct cold *cold, uint32_t mask)
{
	if (is_bounded(translation, cold)) {
		emit_rr(out(translation), OP32(0xf7), 0, R10);
		emit32(out(translation), mask);
		emit_drop_entry(translation, CC_Z);
		branch_if_absent(translation, cold);
	} else {
		emit_rr(out(translation), OP32(0x21), R11, R10);
		emit_rr(out(translation), OP32(0xf7), 0, R10);
		emit32(out(translation), mask);
		cold->from[1] = emit_jcc(out(translation), CC_Z);
	}
	cold->one_branch = true;
	cold->lookup = out(translation)->out;
}

/*
 * The lookup: afterwards r11 is host - guest of the page of ea. flags_live: saved before, to be
 * restored by the caller between the returned cold's `back` and its access. Uses r10 where that
 * does not hold the address.
 */
struct cold *emit_lookup(struct translation *translation, struct host_mem ea,
			 enum address_place place, unsigned bytes, bool read, bool write)
{
	struct emitter *emitter = out(translation);
	struct host_mem last = ea;
	struct cold *cold;
	unsigned span = 1;
	unsigned unit = access_unit_bytes(&translation->at->insn, write);
	uint32_t mask;

	if (translation->grouped)
		return &translation->no_cold;
	cold = translate_new_cold(translation, COLD_MEMORY);
	while (span < bytes)
		span *= 2;
	mask = (unit - 1) & ~(span - 1);
	cold->ea = ea;
	cold->ea_in_r10 = place != IN_REGISTERS;
	cold->bytes = (uint16_t)bytes;
	cold->unit_bytes = (uint16_t)unit;
	cold->read = read;
	cold->write = write;
	last.disp += (int32_t)bytes - 1;
	if (place == IN_REGISTERS) {
		emit_lea(emitter, R10, last);
		emit_entry(translation, R10, write);
		if (bytes > 1)
			branch_once(translation, cold, mask);
		else
			branch_if_absent(translation, cold);
	} else if (bytes > 1 && (place == IN_R10 || unit < PAGE_BYTES)) {
		emit_lea(emitter, R11, last);
		emit_rr(emitter, OP32(0xf7), 0, R11);
		emit32(emitter, mask);
		cold->crossing = emit_jcc(emitter, CC_Z);
		if (is_bounded(translation, cold))
			emit_cmov(emitter, CC_Z, R10,
				  R11); /* of its last byte on, all in one page */
		cold->lookup = emitter->out;
		emit_entry(translation, R11, write);
		branch_if_absent(translation, cold);
	} else {
		emit_entry(translation, R10, write);
		branch_if_absent(translation, cold);
	}
	emit_unpoison(emitter, R11);
	cold->back = emitter->out;
	return cold;
}
