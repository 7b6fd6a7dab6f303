/*
 * Loops whose block jumps back to its own begin, in strips: as many iterations as all accesses stay
 * in their pages, with one lookup for each stream of accesses and none in the loop.
 *
 *   entry:  one iteration as ever ... jump back taken: on to the head; else to what follows
 *   head:   how many iterations fit: the least over the streams; deltas into scratch registers
 *   strip:  the guest's instructions, accesses at [base + delta + disp]; the guest's own jump the
 *           other way round leaves; counter
 *   back:   poll, to the entry
 *
 * A stream is what goes through the same registers, within 256 bytes. Its registers change by a
 * constant each iteration, or not at all.
 *
 *    - Guest registers hold guest values at each instruction, and host flags are the guest's: the
 *      pc map of the strip is that of the body.
 *    - No delta survives the poll. A strip ends after a page of its fastest stream.
 *    - What the head does not like (an absent entry, a page's end that is near) is done by the
 *      entry, one iteration of ordinary code.
 *    - A loop that leaves its strips after a few iterations is done without most of the time: a
 *      head costs as much as they.
 *    - r14 and r15, where they are used, are loaded again on every way out; a fault loads them, too
 *      (thunk.c).
 *
 * Left out: bodies with displaced registers, with calls or the stack's instructions, with addresses
 * of 32 bits or relative to a segment; strides that are not constant.
 */
#include "translate_internal.h"

#include <assert.h>

enum {
	STREAMS = 3,
	BODY_INSNS = 32,
	DOUBLED_INSNS = 12,
	STREAM_BYTES = 256,
	STRIDE_MOST = 256,
	STRIP_MOST = 1024, /* iterations of a loop whose accesses do not move */
	SIDE_EXITS = 8
};

/* Scratch registers in the order in which they are taken: deltas, then the counter. */
static const uint8_t scratch[] = { R11, R10, R14, R15 };

struct stream {
	uint8_t base, index, scale_log2;
	int32_t low, high; /* of displacements, as if all was accessed at the top of the body */
	int32_t stride;    /* in bytes an iteration */
	bool write;
	bool base_in_delta, index_in_delta;
};

/* How a register that addresses use changes in an iteration. */
struct change { bool is_known; int32_t by; unsigned at; };

struct strip {
	struct translation *translation;
	unsigned jump, streams, copies;
	struct stream stream[STREAMS];
	uint8_t used_by[BODY_INSNS]; /* which stream, by instruction */
	uint8_t *fails[2 * STREAMS + 2], *leaves[2];
	unsigned fail_count;
	struct { uint8_t *from; unsigned insn; } exits[2 * SIDE_EXITS];
	unsigned exit_count;
};

static uint8_t counter(const struct strip *strip) { return scratch[strip->streams]; }

/* ---- what a body is */

static int32_t immediate_step(const struct x86_insn *insn, uint8_t reg, bool *ret_known)
{
	int64_t by = (int64_t)insn->imm;

	*ret_known = false;
	if (insn->kind)
		return 0;
	if (insn->encoding.class == X86_CLASS_LEA && insn->reg == reg && insn->base == reg &&
	    insn->index == X86_NO_REGISTER && insn->operand_bytes == 8 &&
	    insn->address_bytes == 8) {
		*ret_known = true;
		return insn->disp;
	}
	if (!insn->rex_w || x86_insn_is(insn, X86_ENC_RM8) || !insn->has_modrm || insn->mod != 3 ||
	    insn->rm != reg)
		return 0;
	switch (insn->encoding.operation) {
	case X86_OPERATION_INC: *ret_known = true; return 1;
	case X86_OPERATION_DEC: *ret_known = true; return -1;
	case X86_OPERATION_ADD:
	case X86_OPERATION_SUB: break;
	default: return 0;
	}
	*ret_known = insn->imm_bytes && by >= -STRIDE_MOST && by <= STRIDE_MOST;
	return insn->encoding.operation == X86_OPERATION_ADD ? (int32_t)by : -(int32_t)by;
}

static struct change change_of(const struct strip *strip, uint8_t reg)
{
	struct change change = { .is_known = true };
	unsigned changes = 0;

	for (unsigned n = 0; reg != X86_NO_REGISTER && n < strip->jump; n++) {
		const struct x86_insn *insn = &strip->translation->insns[n].insn;

		if (!translate_changes(insn, reg))
			continue;
		change.at = n;
		change.by = immediate_step(insn, reg, &change.is_known);
		if (++changes > 1 || !change.is_known)
			return (struct change){ .is_known = false };
	}
	return change;
}

static bool is_near_end(int32_t low, int32_t high) { return high - low > STREAM_BYTES; }

/* The access joins a stream, or begins one. */
static bool add_access(struct strip *strip, unsigned n, unsigned bytes)
{
	const struct x86_insn *insn = &strip->translation->insns[n].insn;
	struct change base = change_of(strip, insn->base);
	struct change index = change_of(strip, insn->index);
	int32_t step = base.by + index.by * (1 << insn->scale_log2);
	int32_t at = insn->disp;
	struct stream *stream = strip->stream;

	if (!base.is_known || !index.is_known || (base.by && index.by) || step > STRIDE_MOST ||
	    step < -STRIDE_MOST || at > INT32_MAX / 2 || at < INT32_MIN / 2)
		return false;
	if ((base.by && n > base.at) || (index.by && n > index.at))
		at += step;
	for (; stream < strip->stream + strip->streams; stream++) {
		int32_t low = at < stream->low ? at : stream->low;
		int32_t high = at + (int32_t)bytes > stream->high ? at + (int32_t)bytes
								  : stream->high;

		if (stream->base != insn->base || stream->index != insn->index ||
		    stream->scale_log2 != insn->scale_log2 || is_near_end(low, high))
			continue;
		stream->low = low;
		stream->high = high;
		break;
	}
	if (stream == strip->stream + STREAMS)
		return false;
	if (stream == strip->stream + strip->streams) {
		strip->streams++;
		*stream = (struct stream){ .base = insn->base,
					   .index = insn->index,
					   .scale_log2 = insn->scale_log2,
					   .low = at,
					   .high = at + (int32_t)bytes,
					   .stride = step };
		stream->base_in_delta = insn->base != X86_NO_REGISTER &&
					insn->index != X86_NO_REGISTER && !base.by;
		stream->index_in_delta = insn->base != X86_NO_REGISTER &&
					 insn->index != X86_NO_REGISTER && base.by;
	}
	stream->write |= x86_insn_is(insn, X86_ENC_MEM_WRITE);
	strip->used_by[n] = (uint8_t)(stream - strip->stream);
	return true;
}

static bool is_high_byte_form(const struct x86_insn *insn)
{
	return !insn->rex && !insn->kind && x86_insn_is(insn, X86_ENC_REG8) && insn->reg >= 4 &&
	       insn->reg < 8;
}

/* A data instruction that can be copied with nothing of ours in its way. */
static bool add_data(struct strip *strip, unsigned n)
{
	const struct x86_insn *insn = &strip->translation->insns[n].insn;
	struct host_encoding encoding;
	struct renaming renaming;

	translate_collect(insn, &renaming, true);
	if (!x86_insn_is(insn, X86_ENC_PLAIN) || x86_insn_is_locked(insn) || renaming.count ||
	    translate_is_fpu_off(strip->translation, insn) || !soft_host_encoding(insn, &encoding))
		return false;
	if (!x86_insn_has_memory(insn))
		return true;
	return (translate_simple_address(strip->translation, insn, encoding.memory_bytes) ||
		translate_indexed_address(strip->translation, insn, encoding.memory_bytes)) &&
	       !is_high_byte_form(insn) && add_access(strip, n, encoding.memory_bytes);
}

static bool add_lea(const struct x86_insn *insn)
{
	return insn->operand_bytes >= 4 && insn->address_bytes == 8 && !displaced(insn->reg) &&
	       (insn->base >= 16 || !displaced(insn->base)) &&
	       (insn->index >= 16 || !displaced(insn->index));
}

static bool add_insn(struct strip *strip, unsigned n)
{
	const struct x86_insn *insn = &strip->translation->insns[n].insn;

	switch (insn->encoding.class) {
	case X86_CLASS_DATA: return add_data(strip, n);
	case X86_CLASS_LEA: return add_lea(insn);
	case X86_CLASS_HINT: return true;
	case X86_CLASS_JCC: return ++strip->exit_count <= SIDE_EXITS;
	default: return false;
	}
}

/* Streams that are written come first: the last may need the write table's register. */
static bool sort_streams(struct strip *strip)
{
	if (strip->streams < STREAMS || !strip->stream[STREAMS - 1].write)
		return strip->streams;
	for (unsigned n = 0; n < STREAMS - 1; n++) {
		struct stream kept = strip->stream[n];

		if (kept.write)
			continue;
		strip->stream[n] = strip->stream[STREAMS - 1];
		strip->stream[STREAMS - 1] = kept;
		for (unsigned k = 0; k < strip->jump; k++) {
			if (strip->used_by[k] == n)
				strip->used_by[k] = STREAMS - 1;
			else if (strip->used_by[k] == STREAMS - 1)
				strip->used_by[k] = (uint8_t)n;
		}
		return true;
	}
	return false;
}

static bool is_strip(struct strip *strip)
{
	if (strip->jump >= BODY_INSNS || strip->translation->code_bits != 64 ||
	    strip->translation->mode & MODE_ALIGNED)
		return false;
	for (unsigned n = 0; n < strip->jump; n++)
		if (!add_insn(strip, n))
			return false;
	strip->copies = strip->jump <= DOUBLED_INSNS ? 2 : 1;
	strip->exit_count = 0;
	return sort_streams(strip);
}

/* ---- whether it is worth it */

static void fail_if(struct strip *strip, uint8_t cc)
{
	assert(strip->fail_count < sizeof(strip->fails) / sizeof(strip->fails[0]));
	strip->fails[strip->fail_count++] = emit_jcc(out(strip->translation), cc);
}

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

/*
 * At the head. The counter at the last strip's begin, less what was left of it, is how long that
 * was; after some short ones in a row only one head in many goes on.
 */
static void skip_if_short(struct strip *strip)
{
	enum { ITERATIONS_WORTH_IT = 4, PATIENCE = 8, SKIPPED_MASK = 63 };
	struct emitter *emitter = out(strip->translation);
	uint8_t *good, *patient, *on;

	emit_rm(emitter, OP32(0x8b), R10, HISTORY(strip, counted));
	emit_rm(emitter, OP32(0x2b), R10, HISTORY(strip, left));
	emit_rr(emitter, OP32(0x83), 7, R10);
	emit8(emitter, (uint8_t)(ITERATIONS_WORTH_IT / strip->copies));
	good = emit_jcc(emitter, CC_NC);
	emit_rm(emitter, OP32(0x83), 5, HISTORY(strip, patience)); /* sub */
	emit8(emitter, 1);
	patient = emit_jcc(emitter, CC_NS);
	emit_rm(emitter, OP32(0xf6), 0, HISTORY(strip, patience));
	emit8(emitter, SKIPPED_MASK);
	fail_if(strip, CC_NZ);
	on = emit_jmp(emitter);
	set_jump(good, emitter->out);
	emit_rm(emitter, OP32(0xc7), 0, HISTORY(strip, patience));
	emit32(emitter, PATIENCE);
	set_jump(patient, emitter->out);
	set_jump(on, emitter->out);
}

/* ---- the head */

static struct host_mem first_address(const struct stream *stream)
{
	return (struct host_mem){ .base = stream->base,
				  .index = stream->index,
				  .scale_log2 = stream->scale_log2,
				  .disp = stream->low };
}

/* r10d = how many iterations fit into the page, none: fail. */
static void count_iterations(struct strip *strip, const struct stream *stream)
{
	struct emitter *emitter = out(strip->translation);
	uint32_t room = (uint32_t)(PAGE_BYTES - (stream->high - stream->low));
	unsigned stride = (unsigned)(stream->stride < 0 ? -stream->stride : stream->stride);
	unsigned shift = stride > 1 ? 32 - (unsigned)__builtin_clz(stride - 1) : 0;

	emit_lea(emitter, R10, first_address(stream));
	emit_rr(emitter, OP32(0x81), 4, R10);
	emit32(emitter, PAGE_OFFSET_MASK);
	if (stream->stride > 0) {
		emit_rr(emitter, OP32(0xf7), 3, R10); /* neg */
		emit_rr(emitter, OP32(0x81), 0, R10);
		emit32(emitter, room);
		fail_if(strip, CC_S);
	} else {
		emit_rr(emitter, OP32(0x81), 7, R10);
		emit32(emitter, room);
		fail_if(strip, CC_A);
	}
	if (!stride)
		return;
	emit_rr(emitter, OP32(0xc1), 5, R10);
	emit8(emitter, (uint8_t)shift);
	emit_rr(emitter, OP32(0xff), 0, R10);
}

/* temp[2] = the least of all streams. */
static void count_all(struct strip *strip)
{
	const struct host_op cmova = { .map = 1, .opcode = 0x47 };
	struct emitter *emitter = out(strip->translation);

	emit_rm(emitter, OP32(0xc7), 0, CPU(temp[2]));
	emit32(emitter, STRIP_MOST);
	for (unsigned n = 0; n < strip->streams; n++) {
		count_iterations(strip, &strip->stream[n]);
		if (!strip->stream[n].stride)
			continue;
		emit_rm(emitter, OP32(0x3b), R10, CPU(temp[2]));
		emit_rm(emitter, cmova, R10, CPU(temp[2]));
		emit_rm(emitter, OP32(0x89), R10, CPU(temp[2]));
	}
}

static void look_up(struct strip *strip, unsigned n)
{
	const struct stream *stream = &strip->stream[n];
	struct emitter *emitter = out(strip->translation);
	uint8_t delta = scratch[n];

	emit_lea(emitter, delta, first_address(stream));
	emit_entry_to(strip->translation, delta, delta, stream->write);
	emit_rr(emitter, OP32(0xf6), 0, delta);
	emit8(emitter, 1);
	fail_if(strip, CC_Z);
	emit_rm(emitter, OP64(0x33), delta, CPU(poison)); /* r15 may be a delta by now */
	if (stream->base_in_delta)
		emit_lea(emitter, delta, (struct host_mem){ .base = stream->base, .index = delta });
	if (stream->index_in_delta)
		emit_lea(emitter, delta,
			 (struct host_mem){ .base = delta,
					    .index = stream->index,
					    .scale_log2 = stream->scale_log2 });
}

static void emit_head(struct strip *strip)
{
	struct emitter *emitter = out(strip->translation);

	skip_if_short(strip);
	count_all(strip);
	for (unsigned n = 0; n < strip->streams; n++)
		look_up(strip, n);
	emit_rm(emitter, OP32(0x8b), counter(strip), CPU(temp[2]));
	if (strip->copies > 1) {
		emit_rr(emitter, OP32(0xc1), 5, counter(strip));
		emit8(emitter, 1);
		fail_if(strip, CC_Z);
	}
	emit_rm(emitter, OP32(0x89), counter(strip), HISTORY(strip, counted));
	/* one that goes on to its page's end was worth it */
	emit_rm(emitter, OP32(0xc7), 0, HISTORY(strip, left));
	emit32(emitter, (uint32_t)-STRIP_MOST);
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

/* Jumps out of the body: a stub each, which is patched as any other. */
static void emit_exits(struct strip *strip)
{
	struct translation *translation = strip->translation;

	for (unsigned n = 0; n < strip->exit_count; n++) {
		translation->at = &translation->insns[strip->exits[n].insn];
		set_jump(strip->exits[n].from, out(translation)->out);
		emit_rm(out(translation), OP32(0x89), counter(strip), HISTORY(strip, left));
		load_tables_again(strip);
		translate_jump_out(translation,
				   translate_jump_target(translation, translation->at));
	}
}

/*
 * Behind the counter: with the last iteration the deltas go, to what nobody knows, so that one more
 * that is only predicted reaches nothing. It costs short loops up to a third, and is done where the
 * guest is told of no immunity (docs/speculation.md).
 */
static void bound_streams(const struct strip *strip)
{
	const struct host_op cmovz = { .map = 1, .opcode = 0x44, .rex_w = true };

	for (unsigned n = 0; n < strip->streams && strip->translation->engine->bounds_all; n++)
		emit_rm(out(strip->translation), cmovz, scratch[n], CPU(poison));
}

bool translate_strip(struct translation *translation, uint8_t cc)
{
	bool host_flags = translation->host_flags;
	bool word_flags = translation->word_flags;
	struct guest_insn *jump = translation->at;
	struct strip strip = { .translation = translation,
			       .jump = (unsigned)(translation->at - translation->insns) };
	uint8_t *top;

	if (!is_strip(&strip))
		return false;
	emit_head(&strip);
	translation->host_flags = true;
	translation->word_flags = false;
	translation->in_strip = true;
	top = out(translation)->out;
	for (unsigned n = 0; n < strip.copies; n++) {
		emit_body(&strip);
		translation->at = jump;
		translate_add_map(translation, jump, false);
		strip.leaves[n] = emit_jcc(out(translation), cc ^ 1);
	}
	translation->in_strip = false;
	emit_rr(out(translation), OP32(0xff), 1, counter(&strip)); /* dec */
	bound_streams(&strip);
	set_jump(emit_jcc(out(translation), CC_NZ), top);
	for (unsigned n = 0; n < strip.fail_count; n++)
		set_jump(strip.fails[n], out(translation)->out);
	load_tables_again(&strip);
	translate_loop_back(translation);
	emit_exits(&strip);
	translation->at = jump;
	for (unsigned n = 0; n < strip.copies; n++)
		set_jump(strip.leaves[n], out(translation)->out);
	emit_rm(out(translation), OP32(0x89), counter(&strip), HISTORY(&strip, left));
	load_tables_again(&strip);
	translation->host_flags = host_flags;
	translation->word_flags = word_flags;
	if (word_flags)
		emit_save_flags(out(translation), true);
	return true;
}
