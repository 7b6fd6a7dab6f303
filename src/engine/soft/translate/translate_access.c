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

/* Base and index in their own registers. */
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

static struct host_mem segment_base(const struct x86_insn *insn)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       insn->segment * sizeof(struct x86_segment_state) +
		       offsetof(struct x86_segment_state, base));
}

/* r10, the effective address, becomes the linear one. Uses r11. */
void emit_segment_base(struct translation *translation, const struct x86_insn *insn)
{
	if (!needs_segment_base(translation, insn))
		return;
	emit_load(out(translation), R11, segment_base(insn));
	emit_rm(out(translation), translation->code_bits == 64 ? OP64(0x8d) : OP32(0x8d), R10,
		(struct host_mem){ .base = R10, .index = R11 });
}

/* An address of one register at most, as what an LEA adds to a segment's base in r10. */
static bool fits_one_lea(const struct translation *translation, const struct x86_insn *insn,
			 struct host_mem *ret)
{
	bool has_base = insn->base < 16;
	uint64_t target = translate_after_insn(translation) + (uint64_t)(int64_t)insn->disp;

	*ret = (struct host_mem){ .base = R10, .index = NO_REG, .disp = insn->disp };
	if (insn->base == X86_RIP) {
		ret->disp = (int32_t)target;
		return !soft_floats(translation->mode) && target == (uint64_t)(int64_t)ret->disp;
	}
	if ((has_base && (displaced(insn->base) || insn->base == RSP || insn->index < 16)) ||
	    (insn->index < 16 && displaced(insn->index)))
		return false;
	ret->index = has_base ? insn->base : insn->index;
	ret->scale_log2 = has_base ? 0 : insn->scale_log2;
	return true;
}

/* r10 = the linear address and so many bytes more, of 64 bits throughout. */
static void emit_linear_and(struct translation *translation, const struct x86_insn *insn,
			    int32_t more)
{
	struct x86_insn moved = *insn;
	struct host_mem rest;

	moved.disp += more;
	if (needs_segment_base(translation, insn) && fits_one_lea(translation, &moved, &rest)) {
		emit_load(out(translation), R10, segment_base(insn));
		emit_lea(out(translation), R10, rest);
		return;
	}
	emit_address(translation, &moved, R10, moved.address_bytes);
	emit_segment_base(translation, &moved);
}

enum address_place emit_linear(struct translation *translation, const struct x86_insn *insn,
			       unsigned bytes)
{
	bool within = is_within_page(translation, insn, bytes);
	bool moves = bytes > 1 && !within && translation->code_bits == 64 &&
		     insn->address_bytes == 8 && insn->disp <= INT32_MAX - (int32_t)bytes;

	if (moves) {
		emit_linear_and(translation, insn, (int32_t)bytes - 1);
		return LAST_IN_R10;
	}
	emit_address(translation, insn, R10, insn->address_bytes);
	emit_segment_base(translation, insn);
	return within ? IN_R10_WITHIN_PAGE : IN_R10;
}

struct host_mem translate_placed(enum address_place place, unsigned bytes)
{
	return mem(R10, place == LAST_IN_R10 ? 1 - (int32_t)bytes : 0);
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
				     .disp = TABLE_FIRST });
}

/* In r11. */
void emit_entry(struct translation *translation, uint8_t address, bool write)
{
	emit_entry_to(translation, R11, address, write);
}

static void branch_if_absent(struct translation *translation, struct cold *cold)
{
	emit_rr(out(translation), OP32(0x85), R11, R11); /* test */
	cold->from[1] = emit_jcc(out(translation), CC_Z);
}

/* The same behind emit_drop_entry(), which leaves other bits. */
static void branch_if_dropped(struct translation *translation, struct cold *cold)
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
		branch_if_dropped(translation, cold);
	} else {
		emit_rr(out(translation), OP32(0x21), R11, R10);
		emit_rr(out(translation), OP32(0xf7), 0, R10);
		emit32(out(translation), mask);
		cold->from[1] = emit_jcc(out(translation), CC_Z);
	}
	cold->one_branch = true;
	cold->lookup = out(translation)->out;
}

/* The page of an access that begins there is the base's: no LEA to wait for. */
static bool starts_at_base(struct host_mem ea)
{
	return ea.base != NO_REG && ea.index == NO_REG && !ea.disp;
}

/* The address, of which r10 is free, is in registers. */
static void look_up_registers(struct translation *translation, struct cold *cold, uint32_t mask)
{
	struct host_mem last = cold->ea;
	uint8_t first = starts_at_base(last) ? last.base : R10;

	last.disp += cold->bytes - 1;
	if (cold->bytes > 1 || first == R10)
		emit_lea(out(translation), R10, last);
	emit_entry(translation, first, cold->write);
	if (cold->bytes > 1)
		branch_once(translation, cold, mask);
	else
		branch_if_absent(translation, cold);
}

/* r10 is that of the last byte, and stays so. */
static void look_up_last(struct translation *translation, struct cold *cold, uint32_t mask)
{
	if (is_bounded(translation, cold)) {
		emit_entry(translation, R10, cold->write);
		branch_once(translation, cold, mask);
		return;
	}
	emit_rr(out(translation), OP32(0xf7), 0, R10);
	emit32(out(translation), mask);
	cold->crossing = emit_jcc(out(translation), CC_Z);
	cold->lookup = out(translation)->out;
	emit_entry(translation, R10, cold->write);
	branch_if_absent(translation, cold);
}

/* r10 is that of the first byte. */
static void look_up_first(struct translation *translation, struct cold *cold, uint32_t mask)
{
	emit_lea(out(translation), R11, mem(R10, cold->bytes - 1));
	emit_rr(out(translation), OP32(0xf7), 0, R11);
	emit32(out(translation), mask);
	cold->crossing = emit_jcc(out(translation), CC_Z);
	if (is_bounded(translation, cold)) /* of its last byte on, all in one page */
		emit_cmov(out(translation), CC_Z, R10, R11);
	cold->lookup = out(translation)->out;
	emit_entry(translation, R11, cold->write);
	branch_if_absent(translation, cold);
}

/*
 * The lookup: afterwards r11 is host - guest of the page of ea. flags_live: saved before, to be
 * restored by the caller between the returned cold's `back` and its access. Uses r10 where that
 * does not hold the address.
 */
struct cold *emit_lookup(struct translation *translation, struct host_mem ea,
			 enum address_place place, unsigned bytes, bool read, bool write)
{
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
	cold->last_in_r10 = place == LAST_IN_R10;
	translation->r10_ahead = place == LAST_IN_R10 ? bytes - 1 : 0;
	cold->bytes = (uint16_t)bytes;
	cold->unit_bytes = (uint16_t)unit;
	cold->read = read;
	cold->write = write;
	if (place == IN_REGISTERS) {
		look_up_registers(translation, cold, mask);
	} else if (place == LAST_IN_R10) {
		look_up_last(translation, cold, mask);
	} else if (bytes > 1 && (place == IN_R10 || unit < PAGE_BYTES)) {
		look_up_first(translation, cold, mask);
	} else {
		emit_entry(translation, R10, write);
		branch_if_absent(translation, cold);
	}
	emit_unpoison(out(translation), R11);
	cold->back = out(translation)->out;
	return cold;
}
