/*
 * Loops whose block jumps back to its own begin, in strips: as many iterations as all accesses stay
 * in their pages, with one lookup for each stream of accesses and none in the loop.
 *
 *   entry:  the head: deltas into scratch registers; what is left of the pages, less than nothing
 *   strip:  the guest's instructions, accesses at [base + delta + disp]; the guest's own jump the
 *           other way round leaves; what is left, with a stride more, still less than nothing
 *   one:    one iteration as ever ... jump back taken: poll, to the entry; else to what follows
 *
 * A stream is what goes through the same registers, within 256 bytes (translate_stream.c). Its
 * registers change by a constant or by a register each iteration, or not at all.
 *
 *    - Guest registers hold guest values at each instruction, and host flags are the guest's: the
 *      pc map of the strip is that of the body.
 *    - No delta survives the poll. A strip ends after a page of its fastest stream.
 *    - What the head does not like (an absent entry, a page's end that is near) is one iteration of
 *      ordinary code.
 *    - A loop that leaves its strips after a few iterations is done without most of the time: a
 *      head costs as much as they.
 *    - What a guest chooses and only a branch would keep small (a register that is a stride, an
 *      index that may pass 4 GiB) makes the deltas ones that nobody knows, without a branch.
 *    - r14 and r15, where they are used, are loaded again on every way out; a fault loads them, too
 *      (thunk.c).
 *
 * Left out: bodies with displaced registers, with calls or the stack's instructions, with addresses
 * of 32 bits or relative to a segment.
 */
#include <assert.h>

#include "translate_strip.h"

enum {
	STRIDE_REGISTER_MOST = 2048, /* what is predicted to go on stays near the guest's memory */
	NARROW_ROOM = 2 * PAGE_BYTES, /* more than what an index of 32 bits goes on in a strip */
	INSNS_MOST = 1 << 15         /* of the guest's without a poll */
};

/* Scratch registers in the order in which they are taken: deltas, then what is left. */
static const uint8_t scratch[] = { R11, R10, R14, R15 };

static uint8_t left(const struct strip *strip) { return scratch[strip->streams]; }

static void fail_if(struct strip *strip, uint8_t cc)
{
	assert(strip->fail_count < sizeof(strip->fails) / sizeof(strip->fails[0]));
	strip->fails[strip->fail_count++] = emit_jcc(out(strip->translation), cc);
}

/* By an operation of 32 bits with an immediate: its number in opcodes 81 and 83. */
static void emit_immediate(struct emitter *emitter, uint8_t operation, uint8_t reg, int32_t value)
{
	bool is_short = value == (int8_t)value;

	emit_rr(emitter, OP32(is_short ? 0x83 : 0x81), operation, reg);
	if (is_short)
		emit8(emitter, (uint8_t)value);
	else
		emit32(emitter, (uint32_t)value);
}
enum { ADD = 0, AND = 4, SUB = 5, CMP = 7 };

/* ---- whether it is worth it */

/*
 * What became of a loop's last strip, so that one which is left after a few iterations is hardly
 * ever tried again. Loops share places.
 */
static struct host_mem history(const struct strip *strip, size_t field)
{
	uint64_t place =
		(strip->translation->insns[0].rip & PAGE_OFFSET_MASK) / 4 % STRIP_HISTORIES;

	return cpu_mem(offsetof(struct soft_cpu, strips) + place * sizeof(struct strip_history) +
		       field);
}
#define HISTORY(s, field) history(s, offsetof(struct strip_history, field))

/* In host instructions a head costs so much, and a lookup. Iterations of less gain nothing. */
static unsigned iterations_worth_it(const struct strip *strip)
{
	enum { HEAD = 14, STREAM = 10, LOOKUP = 6, COUNTER = 1 };
	unsigned gain = strip->lookups * LOOKUP - COUNTER;

	return (HEAD + STREAM * strip->streams) / gain + 1;
}

/*
 * r10 is how far the last strip went, without the round that left it: less than was worth it? By a
 * register each page of the stream has to be so, as its end is nothing that a processor foresees.
 */
static void compare_with_short(struct strip *strip)
{
	enum { ROUNDS_LOG2 = 3 };
	struct emitter *emitter = out(strip->translation);
	unsigned rounds = (iterations_worth_it(strip) - 1) / strip->copies;
	int32_t stride = strip->stride ? strip->stride : 1;

	if (strip->stride_reg == NO_REG) {
		emit_immediate(emitter, CMP, R10,
			       (int32_t)((rounds ? rounds : 1) * strip->copies) * stride);
		return;
	}
	emit_rr(emitter, OP32(0xc1), 7, R10); /* sar */
	emit8(emitter, ROUNDS_LOG2);
	emit_rr(emitter, OP32(0x39), strip->stride_reg, R10);
}

/* After some short ones in a row only one head in many goes on. */
static void skip_if_short(struct strip *strip)
{
	struct emitter *emitter = out(strip->translation);

	emit_rm(emitter, OP32(0x83), SUB, HISTORY(strip, skip));
	emit8(emitter, 1);
	strip->skipped = emit_jcc(emitter, CC_NS);
	emit_rm(emitter, OP32(0x8b), R10, HISTORY(strip, left));
	emit_rm(emitter, OP32(0x2b), R10, HISTORY(strip, counted));
	compare_with_short(strip);
	strip->short_before = emit_jcc(emitter, CC_L);
	emit_rm(emitter, OP64(0xc7), 0, HISTORY(strip, skip)); /* shorts as well */
	emit32(emitter, 0);
	strip->head = emitter->out;
}

/* Away from the head: one more that was short. This one is tried. */
static void count_short(const struct strip *strip)
{
	enum { PATIENCE = 8, SKIPPED = 63 };
	struct emitter *emitter = out(strip->translation);

	set_jump(strip->short_before, emitter->out);
	emit_rm(emitter, OP32(0x83), ADD, HISTORY(strip, shorts));
	emit8(emitter, 1);
	emit_rm(emitter, OP32(0x83), CMP, HISTORY(strip, shorts));
	emit8(emitter, PATIENCE);
	set_jump(emit_jcc(emitter, CC_C), strip->head);
	emit_rm(emitter, OP32(0xc7), 0, HISTORY(strip, skip));
	emit32(emitter, SKIPPED);
	set_jump(emit_jmp(emitter), strip->head);
}

/* ---- the head */

static struct host_mem first_address(const struct stream *stream)
{
	return (struct host_mem){ .base = stream->base,
				  .index = stream->index,
				  .scale_log2 = stream->scale_log2,
				  .disp = stream->low };
}

static bool moves(const struct stream *stream)
{
	return stream->stride || stream->stride_reg != NO_REG;
}

/*
 * reg = how far the stream may go on before its accesses leave the page, as a number that is not
 * above zero; above: not even the first iteration is within it, or that fails.
 */
static void count_left(struct strip *strip, const struct stream *stream, uint8_t reg)
{
	struct emitter *emitter = out(strip->translation);
	int32_t bytes = stream->high - stream->low;

	emit_lea(emitter, reg, first_address(stream));
	if (stream->stride > 0 || stream->stride_reg != NO_REG) {
		emit_rr(emitter, OP32(0x81), 1, reg); /* or */
		emit32(emitter, (uint32_t)-PAGE_BYTES);
		emit_immediate(emitter, ADD, reg, bytes);
		return;
	}
	emit_immediate(emitter, AND, reg, PAGE_OFFSET_MASK);
	emit_immediate(emitter, CMP, reg, PAGE_BYTES - bytes);
	fail_if(strip, CC_A);
	if (stream->stride)
		emit_rr(emitter, OP32(0xf7), 3, reg); /* neg */
}

/* r11 = the greater of it and r10. */
static void take_greater(struct emitter *emitter)
{
	const struct host_op cmovl = { .map = 1, .opcode = 0x40 | CC_L };

	emit_rr(emitter, OP32(0x39), R10, R11);
	emit_rr(emitter, cmovl, R11, R10);
}

/* The least stride that there may be, times as many iterations as may go without a poll. */
static int32_t most_bytes(const struct strip *strip)
{
	int32_t iterations = INSNS_MOST / (int32_t)(strip->jump + 1);

	return iterations * (strip->stride ? strip->stride : 1);
}

/* One iteration less; the flags say whether there is one. */
static void emit_stride(const struct strip *strip, uint8_t reg, unsigned times)
{
	struct emitter *emitter = out(strip->translation);

	if (strip->stride_reg == NO_REG) {
		emit_immediate(emitter, ADD, reg,
			       (int32_t)times * (strip->stride ? strip->stride : 1));
		return;
	}
	for (unsigned n = 0; n < times; n++)
		emit_rr(emitter, OP32(0x01), strip->stride_reg, reg);
}

/* What is left for all streams, so that there are as many iterations as copies. */
static void count_all(struct strip *strip)
{
	struct emitter *emitter = out(strip->translation);
	bool is_first = true;

	for (unsigned n = 0; n < strip->streams; n++) {
		bool counts = moves(&strip->stream[n]);

		count_left(strip, &strip->stream[n], counts && is_first ? R11 : R10);
		if (counts && !is_first)
			take_greater(emitter);
		is_first &= !counts;
	}
	if (is_first) {
		emit_constant(emitter, R11, (uint32_t)-most_bytes(strip));
	} else if (most_bytes(strip) < PAGE_BYTES) {
		emit_constant(emitter, R10, (uint32_t)-most_bytes(strip));
		take_greater(emitter);
	}
	if (strip->copies > 1)
		emit_stride(strip, R11, strip->copies - 1);
	else
		emit_rr(emitter, OP32(0x85), R11, R11); /* test */
	fail_if(strip, CC_G);
	emit_rm(emitter, OP32(0x89), R11, HISTORY(strip, counted));
}

static void look_up(struct strip *strip, unsigned n)
{
	const struct stream *stream = &strip->stream[n];
	struct emitter *emitter = out(strip->translation);
	uint8_t delta = scratch[n];
	bool at_base = stream->base != NO_REG && stream->index == NO_REG && !stream->low;

	if (!at_base)
		emit_lea(emitter, delta, first_address(stream));
	emit_entry_to(strip->translation, delta, at_base ? stream->base : delta, stream->write);
	emit_rr(emitter, OP32(0xf6), 0, delta);
	emit8(emitter, 1);
	fail_if(strip, CC_Z);
	emit_unpoison(emitter, delta);
	if (stream->base_in_delta)
		emit_lea(emitter, delta, (struct host_mem){ .base = stream->base, .index = delta });
	if (stream->index_in_delta)
		emit_lea(emitter, delta,
			 (struct host_mem){ .base = delta,
					    .index = stream->index,
					    .scale_log2 = stream->scale_log2 });
}

/*
 * Where cc holds the deltas of all streams but those that stay are ones that nobody knows: what
 * they are for is not done, whatever is predicted.
 */
static void drop_if(struct strip *strip, uint8_t cc)
{
	const struct host_op cmov = { .map = 1, .opcode = 0x40 | cc, .rex_w = true };

	for (unsigned n = 0; n < strip->streams; n++)
		emit_rm(out(strip->translation), cmov, scratch[n], CPU(poison));
	fail_if(strip, cc);
}

/* The register that says how far streams go on: from 1 to what is not too much. */
static void bound_stride(struct strip *strip)
{
	struct emitter *emitter = out(strip->translation);
	struct host_op lea = { .opcode = 0x8d, .rex_w = strip->stride_is_wide };
	struct host_op compare = { .opcode = 0x81, .rex_w = strip->stride_is_wide };

	if (strip->stride_reg == NO_REG)
		return;
	emit_rm(emitter, lea, left(strip), mem(strip->stride_reg, -1));
	emit_rr(emitter, compare, CMP, left(strip));
	emit32(emitter, STRIDE_REGISTER_MOST - 1);
	drop_if(strip, CC_A);
}

/* A register that goes on in 32 bits does not come to their end, nor has it more now. */
static void bound_narrow(struct strip *strip, uint8_t reg)
{
	struct emitter *emitter = out(strip->translation);

	emit_lea(emitter, left(strip), mem(reg, NARROW_ROOM));
	emit_rr(emitter, OP64(0xc1), 5, left(strip)); /* shr */
	emit8(emitter, 32);
	drop_if(strip, CC_NZ);
}

static void emit_head(struct strip *strip)
{
	struct emitter *emitter = out(strip->translation);

	skip_if_short(strip);
	count_all(strip);
	for (unsigned n = 0; n < strip->streams; n++)
		look_up(strip, n);
	bound_stride(strip);
	for (unsigned n = 0; n < strip->streams; n++) {
		uint8_t narrow = strip->stream[n].narrow_reg;

		if (narrow != NO_REG && (!n || narrow != strip->stream[n - 1].narrow_reg))
			bound_narrow(strip, narrow);
	}
	emit_rm(emitter, OP32(0x8b), left(strip), HISTORY(strip, counted));
}

/* ---- the strip */

static void load_tables_again(const struct strip *strip)
{
	if (strip->streams >= 2)
		emit_load(out(strip->translation), R14, CPU(write_table));
	if (strip->streams >= 3)
		emit_load(out(strip->translation), R15, CPU(read_table));
}

/* What the lookup's register stands for is added to what is left of the address. */
static struct host_mem access_of(const struct strip *strip, unsigned n)
{
	const struct x86_insn *insn = &strip->translation->insns[n].insn;
	const struct stream *stream = &strip->stream[strip->used_by[n]];
	uint8_t delta = scratch[strip->used_by[n]];

	if (insn->index == X86_NO_REGISTER || stream->index_in_delta)
		return (struct host_mem){ .base = insn->base, .index = delta, .disp = insn->disp };
	return (struct host_mem){ .base = delta,
				  .index = insn->index,
				  .scale_log2 = insn->scale_log2,
				  .disp = insn->disp };
}

static void emit_body(struct strip *strip)
{
	struct translation *translation = strip->translation;

	for (unsigned n = 0; n < strip->jump; n++) {
		const struct x86_insn *insn = &translation->insns[n].insn;

		translation->at = &translation->insns[n];
		translate_add_map(translation, translation->at, false);
		if (insn->encoding.class == X86_CLASS_JCC) {
			strip->exits[strip->exit_count].from =
				emit_jcc(out(translation), insn->opcode & 15);
			strip->exits[strip->exit_count++].insn = n;
		} else if (x86_insn_has_memory(insn) && insn->encoding.class == X86_CLASS_DATA) {
			translate_copy_at(translation, access_of(strip, n));
		} else {
			translate_insn(translation);
		}
	}
}

/*
 * Behind the counter: with the last iteration the deltas go, to what nobody knows, so that one more
 * that is only predicted reaches nothing. It costs short loops up to a third, and is done where the
 * guest is told of no immunity (docs/speculation.md).
 */
static void bound_streams(const struct strip *strip)
{
	const struct host_op cmovg = { .map = 1, .opcode = 0x40 | CC_G, .rex_w = true };

	for (unsigned n = 0; n < strip->streams && strip->translation->engine->bounds_all; n++)
		emit_rm(out(strip->translation), cmovg, scratch[n], CPU(poison));
}

/* The jump back to the block's begin, behind what can be a strip; BODY_INSNS: there is none. */
static unsigned find_jump(const struct translation *translation)
{
	for (unsigned n = 0; n < translation->count && n < BODY_INSNS; n++)
		if (translation->insns[n].insn.encoding.class == X86_CLASS_JCC &&
		    translate_is_plain_loop(
			    translation,
			    translate_jump_target(translation, &translation->insns[n])))
			return n;
	return BODY_INSNS;
}

/*
 * What is executed again and again begins with a cache line: elsewhere it takes a tenth more or
 * less with each change of what lies in front of it.
 */
static void align_loop(struct emitter *emitter)
{
	enum { NOP_MOST = 8 };
	unsigned bytes = -(unsigned)(uintptr_t)emitter->out % CACHE_LINE_BYTES;

	for (; bytes > NOP_MOST; bytes -= NOP_MOST)
		emit_nop(emitter, NOP_MOST);
	emit_nop(emitter, bytes);
}

void translate_begin_strip(struct translation *translation, struct strip *strip)
{
	uint8_t *top;

	*strip = (struct strip){ .translation = translation, .jump = find_jump(translation) };
	if (strip->jump == BODY_INSNS || !translate_find_streams(strip))
		return;
	translation->strip = strip;
	emit_head(strip);
	align_loop(out(translation));
	translation->in_strip = true;
	top = out(translation)->out;
	for (unsigned n = 0; n < strip->copies; n++) {
		emit_body(strip);
		translation->at = &translation->insns[strip->jump];
		translate_add_map(translation, translation->at, false);
		strip->leaves[n] =
			emit_jcc(out(translation), (translation->at->insn.opcode & 15) ^ 1);
	}
	translation->in_strip = false;
	emit_stride(strip, left(strip), strip->copies);
	bound_streams(strip);
	set_jump(emit_jcc(out(translation), CC_LE), top);
	emit_rm(out(translation), OP32(0x89), left(strip), HISTORY(strip, left));
	for (unsigned n = 0; n < strip->fail_count; n++)
		set_jump(strip->fails[n], out(translation)->out);
	load_tables_again(strip);
	set_jump(strip->skipped, out(translation)->out);
}

/* Jumps out of the body: a stub each, which is patched as any other. */
static void emit_exits(struct strip *strip)
{
	struct translation *translation = strip->translation;
	struct guest_insn *jump = translation->at;

	for (unsigned n = 0; n < strip->exit_count; n++) {
		translation->at = &translation->insns[strip->exits[n].insn];
		set_jump(strip->exits[n].from, out(translation)->out);
		emit_rm(out(translation), OP32(0x89), left(strip), HISTORY(strip, left));
		load_tables_again(strip);
		translate_jump_out(translation,
				   translate_jump_target(translation, translation->at));
	}
	translation->at = jump;
}

void translate_end_strip(struct translation *translation)
{
	bool host_flags = translation->host_flags;
	bool word_flags = translation->word_flags;
	struct strip *strip = translation->strip;

	if (!strip || translation->at != &translation->insns[strip->jump])
		return;
	translation->strip = NULL;
	translation->host_flags = true;
	translation->word_flags = false;
	count_short(strip);
	emit_exits(strip);
	for (unsigned n = 0; n < strip->copies; n++)
		set_jump(strip->leaves[n], out(translation)->out);
	emit_rm(out(translation), OP32(0x89), left(strip), HISTORY(strip, left));
	load_tables_again(strip);
	translation->host_flags = host_flags;
	translation->word_flags = word_flags;
	if (word_flags)
		emit_save_flags(out(translation), true);
}
