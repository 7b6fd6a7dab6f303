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
 *   1. Guest registers hold guest values at each instruction, and host flags are the guest's: the
 *      pc map of the strip is that of the body.
 *   2. No delta survives the poll. A strip ends after a page of its fastest stream.
 *   3. What the head does not like (an absent entry, a page's end that is near) is done by the
 *      entry, one iteration of ordinary code.
 *   4. A loop that leaves its strips after a few iterations is done without most of the time: a
 *      head costs as much as they.
 *   5. r14 and r15, where they are used, are loaded again on every way out; a fault loads them, too
 *      (thunk.c).
 *
 * Left out: bodies with displaced registers, with calls or the stack's instructions, with addresses
 * of 32 bits or relative to a segment; strides that are not constant.
 */
#include "translate_internal.h"

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
	struct translation *t;
	unsigned jump, streams, copies;
	struct stream stream[STREAMS];
	uint8_t used_by[BODY_INSNS]; /* which stream, by instruction */
	uint8_t *fails[2 * STREAMS + 2], *leaves[2];
	unsigned fail_count;
	struct { uint8_t *from; unsigned insn; } exits[2 * SIDE_EXITS];
	unsigned exit_count;
};

static uint8_t counter(const struct strip *s) { return scratch[s->streams]; }

/* ---- what a body is */

static int32_t immediate_step(const struct x86_insn *i, uint8_t reg, bool *ret_known)
{
	int64_t by = (int64_t)i->imm;

	*ret_known = false;
	if (i->kind)
		return 0;
	if (i->encoding.class == X86_CLASS_LEA && i->reg == reg && i->base == reg &&
	    i->index == X86_NO_REGISTER && i->operand_bytes == 8 && i->address_bytes == 8) {
		*ret_known = true;
		return i->disp;
	}
	if (!i->rex_w || x86_insn_is(i, X86_ENC_RM8) || !i->has_modrm || i->mod != 3 ||
	    i->rm != reg)
		return 0;
	switch (i->encoding.operation) {
	case X86_OPERATION_INC: *ret_known = true; return 1;
	case X86_OPERATION_DEC: *ret_known = true; return -1;
	case X86_OPERATION_ADD:
	case X86_OPERATION_SUB: break;
	default: return 0;
	}
	*ret_known = i->imm_bytes && by >= -STRIDE_MOST && by <= STRIDE_MOST;
	return i->encoding.operation == X86_OPERATION_ADD ? (int32_t)by : -(int32_t)by;
}

static struct change change_of(const struct strip *s, uint8_t reg)
{
	struct change change = { .is_known = true };
	unsigned changes = 0;

	for (unsigned n = 0; reg != X86_NO_REGISTER && n < s->jump; n++) {
		const struct x86_insn *i = &s->t->insns[n].insn;

		if (!translate_changes(i, reg))
			continue;
		change.at = n;
		change.by = immediate_step(i, reg, &change.is_known);
		if (++changes > 1 || !change.is_known)
			return (struct change){ .is_known = false };
	}
	return change;
}

static bool is_near_end(int32_t low, int32_t high) { return high - low > STREAM_BYTES; }

/* The access joins a stream, or begins one. */
static bool add_access(struct strip *s, unsigned n, unsigned bytes)
{
	const struct x86_insn *i = &s->t->insns[n].insn;
	struct change base = change_of(s, i->base);
	struct change index = change_of(s, i->index);
	int32_t step = base.by + index.by * (1 << i->scale_log2);
	int32_t at = i->disp;
	struct stream *stream = s->stream;

	if (!base.is_known || !index.is_known || (base.by && index.by) || step > STRIDE_MOST ||
	    step < -STRIDE_MOST || at > INT32_MAX / 2 || at < INT32_MIN / 2)
		return false;
	if ((base.by && n > base.at) || (index.by && n > index.at))
		at += step;
	for (; stream < s->stream + s->streams; stream++) {
		int32_t low = at < stream->low ? at : stream->low;
		int32_t high = at + (int32_t)bytes > stream->high ? at + (int32_t)bytes
								  : stream->high;

		if (stream->base != i->base || stream->index != i->index ||
		    stream->scale_log2 != i->scale_log2 || is_near_end(low, high))
			continue;
		stream->low = low;
		stream->high = high;
		break;
	}
	if (stream == s->stream + STREAMS)
		return false;
	if (stream == s->stream + s->streams) {
		s->streams++;
		*stream = (struct stream){ .base = i->base,
					   .index = i->index,
					   .scale_log2 = i->scale_log2,
					   .low = at,
					   .high = at + (int32_t)bytes,
					   .stride = step };
		stream->base_in_delta = i->base != X86_NO_REGISTER &&
					i->index != X86_NO_REGISTER && !base.by;
		stream->index_in_delta = i->base != X86_NO_REGISTER &&
					 i->index != X86_NO_REGISTER && base.by;
	}
	stream->write |= x86_insn_is(i, X86_ENC_MEM_WRITE);
	s->used_by[n] = (uint8_t)(stream - s->stream);
	return true;
}

static bool is_high_byte_form(const struct x86_insn *i)
{
	return !i->rex && !i->kind && x86_insn_is(i, X86_ENC_REG8) && i->reg >= 4 && i->reg < 8;
}

/* A data instruction that can be copied with nothing of ours in its way. */
static bool add_data(struct strip *s, unsigned n)
{
	const struct x86_insn *i = &s->t->insns[n].insn;
	struct host_encoding h;
	struct renaming r;

	translate_collect(i, &r, true);
	if (!x86_insn_is(i, X86_ENC_PLAIN) || x86_insn_is_locked(i) || r.count ||
	    translate_is_fpu_off(s->t, i) || !soft_host_encoding(i, &h))
		return false;
	if (!x86_insn_has_memory(i))
		return true;
	return (translate_simple_address(s->t, i, h.memory_bytes) ||
		translate_indexed_address(s->t, i, h.memory_bytes)) &&
	       !is_high_byte_form(i) && add_access(s, n, h.memory_bytes);
}

static bool add_lea(const struct x86_insn *i)
{
	return i->operand_bytes >= 4 && i->address_bytes == 8 && !displaced(i->reg) &&
	       (i->base >= 16 || !displaced(i->base)) && (i->index >= 16 || !displaced(i->index));
}

static bool add_insn(struct strip *s, unsigned n)
{
	const struct x86_insn *i = &s->t->insns[n].insn;

	switch (i->encoding.class) {
	case X86_CLASS_DATA: return add_data(s, n);
	case X86_CLASS_LEA: return add_lea(i);
	case X86_CLASS_HINT: return true;
	case X86_CLASS_JCC: return ++s->exit_count <= SIDE_EXITS;
	default: return false;
	}
}

/* Streams that are written come first: the last may need the write table's register. */
static bool sort_streams(struct strip *s)
{
	if (s->streams < STREAMS || !s->stream[STREAMS - 1].write)
		return s->streams;
	for (unsigned n = 0; n < STREAMS - 1; n++) {
		struct stream kept = s->stream[n];

		if (kept.write)
			continue;
		s->stream[n] = s->stream[STREAMS - 1];
		s->stream[STREAMS - 1] = kept;
		for (unsigned k = 0; k < s->jump; k++) {
			if (s->used_by[k] == n)
				s->used_by[k] = STREAMS - 1;
			else if (s->used_by[k] == STREAMS - 1)
				s->used_by[k] = (uint8_t)n;
		}
		return true;
	}
	return false;
}

static bool is_strip(struct strip *s)
{
	if (s->jump >= BODY_INSNS || s->t->code_bits != 64 || s->t->mode & MODE_ALIGNED)
		return false;
	for (unsigned n = 0; n < s->jump; n++)
		if (!add_insn(s, n))
			return false;
	s->copies = s->jump <= DOUBLED_INSNS ? 2 : 1;
	s->exit_count = 0;
	return sort_streams(s);
}

/* ---- whether it is worth it */

static void fail_if(struct strip *s, uint8_t cc)
{
	s->fails[s->fail_count++] = emit_jcc(out(s->t), cc);
}

/*
 * What became of a loop's last strip, so that one which is left after a few iterations is hardly
 * ever tried again. Loops share places.
 */
static struct host_mem history(const struct strip *s, size_t field)
{
	uint64_t place = (s->t->insns[0].rip & PAGE_OFFSET_MASK) / 4 % STRIP_HISTORIES;

	return cpu_mem(offsetof(struct soft_cpu, strips) + place * sizeof(struct strip_history) +
		       field);
}
#define HISTORY(s, field) history(s, offsetof(struct strip_history, field))

/*
 * At the head. The counter at the last strip's begin, less what was left of it, is how long that
 * was; after some short ones in a row only one head in many goes on.
 */
static void skip_if_short(struct strip *s)
{
	enum { ITERATIONS_WORTH_IT = 4, PATIENCE = 8, SKIPPED_MASK = 63 };
	struct emitter *e = out(s->t);
	uint8_t *good, *patient, *on;

	emit_rm(e, OP32(0x8b), R10, HISTORY(s, counted));
	emit_rm(e, OP32(0x2b), R10, HISTORY(s, left));
	emit_rr(e, OP32(0x83), 7, R10);
	emit8(e, (uint8_t)(ITERATIONS_WORTH_IT / s->copies));
	good = emit_jcc(e, CC_NC);
	emit_rm(e, OP32(0x83), 5, HISTORY(s, patience)); /* sub */
	emit8(e, 1);
	patient = emit_jcc(e, CC_NS);
	emit_rm(e, OP32(0xf6), 0, HISTORY(s, patience));
	emit8(e, SKIPPED_MASK);
	fail_if(s, CC_NZ);
	on = emit_jmp(e);
	set_jump(good, e->out);
	emit_rm(e, OP32(0xc7), 0, HISTORY(s, patience));
	emit32(e, PATIENCE);
	set_jump(patient, e->out);
	set_jump(on, e->out);
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
static void count_iterations(struct strip *s, const struct stream *stream)
{
	struct emitter *e = out(s->t);
	uint32_t room = (uint32_t)(PAGE_BYTES - (stream->high - stream->low));
	unsigned stride = (unsigned)(stream->stride < 0 ? -stream->stride : stream->stride);
	unsigned shift = stride > 1 ? 32 - (unsigned)__builtin_clz(stride - 1) : 0;

	emit_lea(e, R10, first_address(stream));
	emit_rr(e, OP32(0x81), 4, R10);
	emit32(e, PAGE_OFFSET_MASK);
	if (stream->stride > 0) {
		emit_rr(e, OP32(0xf7), 3, R10); /* neg */
		emit_rr(e, OP32(0x81), 0, R10);
		emit32(e, room);
		fail_if(s, CC_S);
	} else {
		emit_rr(e, OP32(0x81), 7, R10);
		emit32(e, room);
		fail_if(s, CC_A);
	}
	if (!stride)
		return;
	emit_rr(e, OP32(0xc1), 5, R10);
	emit8(e, (uint8_t)shift);
	emit_rr(e, OP32(0xff), 0, R10);
}

/* temp[2] = the least of all streams. */
static void count_all(struct strip *s)
{
	const struct host_op cmova = { .map = 1, .opcode = 0x47 };
	struct emitter *e = out(s->t);

	emit_rm(e, OP32(0xc7), 0, CPU(temp[2]));
	emit32(e, STRIP_MOST);
	for (unsigned n = 0; n < s->streams; n++) {
		count_iterations(s, &s->stream[n]);
		if (!s->stream[n].stride)
			continue;
		emit_rm(e, OP32(0x3b), R10, CPU(temp[2]));
		emit_rm(e, cmova, R10, CPU(temp[2]));
		emit_rm(e, OP32(0x89), R10, CPU(temp[2]));
	}
}

static void look_up(struct strip *s, unsigned n)
{
	const struct stream *stream = &s->stream[n];
	struct emitter *e = out(s->t);
	uint8_t delta = scratch[n];

	emit_lea(e, delta, first_address(stream));
	emit_entry_to(s->t, delta, delta, stream->write);
	emit_rr(e, OP32(0xf6), 0, delta);
	emit8(e, 1);
	fail_if(s, CC_Z);
	emit_unpoison(e, delta);
	if (stream->base_in_delta)
		emit_lea(e, delta, (struct host_mem){ .base = stream->base, .index = delta });
	if (stream->index_in_delta)
		emit_lea(e, delta,
			 (struct host_mem){ .base = delta,
					    .index = stream->index,
					    .scale_log2 = stream->scale_log2 });
}

static void emit_head(struct strip *s)
{
	struct emitter *e = out(s->t);

	skip_if_short(s);
	count_all(s);
	for (unsigned n = 0; n < s->streams; n++)
		look_up(s, n);
	emit_rm(e, OP32(0x8b), counter(s), CPU(temp[2]));
	if (s->copies > 1) {
		emit_rr(e, OP32(0xc1), 5, counter(s));
		emit8(e, 1);
		fail_if(s, CC_Z);
	}
	emit_rm(e, OP32(0x89), counter(s), HISTORY(s, counted));
	/* one that goes on to its page's end was worth it */
	emit_rm(e, OP32(0xc7), 0, HISTORY(s, left));
	emit32(e, (uint32_t)-STRIP_MOST);
}

/* ---- the strip */

static void load_tables_again(const struct strip *s)
{
	if (s->streams >= 2)
		emit_load(out(s->t), R14, CPU(write_table));
	if (s->streams >= 3)
		emit_load(out(s->t), R15, CPU(read_table));
}

/* What the lookup's register stands for is added to what is left of the address. */
static struct host_mem access_of(const struct strip *s, unsigned n)
{
	const struct x86_insn *i = &s->t->insns[n].insn;
	const struct stream *stream = &s->stream[s->used_by[n]];
	uint8_t delta = scratch[s->used_by[n]];

	if (i->index == X86_NO_REGISTER || stream->index_in_delta)
		return (struct host_mem){ .base = i->base, .index = delta, .disp = i->disp };
	return (struct host_mem){
		.base = delta, .index = i->index, .scale_log2 = i->scale_log2, .disp = i->disp
	};
}

static void emit_body(struct strip *s)
{
	struct translation *t = s->t;

	for (unsigned n = 0; n < s->jump; n++) {
		const struct x86_insn *i = &t->insns[n].insn;

		t->at = &t->insns[n];
		translate_add_map(t, t->at, false);
		if (i->encoding.class == X86_CLASS_JCC) {
			s->exits[s->exit_count].from = emit_jcc(out(t), i->opcode & 15);
			s->exits[s->exit_count++].insn = n;
		} else if (x86_insn_has_memory(i) && i->encoding.class == X86_CLASS_DATA) {
			translate_copy_at(t, access_of(s, n));
		} else {
			translate_insn(t);
		}
	}
}

/* Jumps out of the body: a stub each, which is patched as any other. */
static void emit_exits(struct strip *s)
{
	struct translation *t = s->t;

	for (unsigned n = 0; n < s->exit_count; n++) {
		t->at = &t->insns[s->exits[n].insn];
		set_jump(s->exits[n].from, out(t)->out);
		emit_rm(out(t), OP32(0x89), counter(s), HISTORY(s, left));
		load_tables_again(s);
		translate_jump_out(t, translate_jump_target(t, t->at));
	}
}

/*
 * Behind the counter: with the last iteration the deltas go, to what nobody knows, so that one more
 * that is only predicted reaches nothing. It costs short loops up to a third, and is done where the
 * guest is told of no immunity (docs/speculation.md).
 */
static void bound_streams(const struct strip *s)
{
	const struct host_op cmovz = { .map = 1, .opcode = 0x44, .w = true };

	for (unsigned n = 0; n < s->streams && s->t->engine->bounds_all; n++)
		emit_rm(out(s->t), cmovz, scratch[n], CPU(poison));
}

bool translate_strip(struct translation *t, uint8_t cc)
{
	bool host_flags = t->host_flags;
	bool word_flags = t->word_flags;
	struct guest_insn *jump = t->at;
	struct strip s = { .t = t, .jump = (unsigned)(t->at - t->insns) };
	uint8_t *top;

	if (!is_strip(&s))
		return false;
	emit_head(&s);
	t->host_flags = true;
	t->word_flags = false;
	t->in_strip = true;
	top = out(t)->out;
	for (unsigned n = 0; n < s.copies; n++) {
		emit_body(&s);
		t->at = jump;
		translate_add_map(t, jump, false);
		s.leaves[n] = emit_jcc(out(t), cc ^ 1);
	}
	t->in_strip = false;
	emit_rr(out(t), OP32(0xff), 1, counter(&s)); /* dec */
	bound_streams(&s);
	set_jump(emit_jcc(out(t), CC_NZ), top);
	for (unsigned n = 0; n < s.fail_count; n++)
		set_jump(s.fails[n], out(t)->out);
	load_tables_again(&s);
	translate_loop_back(t);
	emit_exits(&s);
	t->at = jump;
	for (unsigned n = 0; n < s.copies; n++)
		set_jump(s.leaves[n], out(t)->out);
	emit_rm(out(t), OP32(0x89), counter(&s), HISTORY(&s, left));
	load_tables_again(&s);
	t->host_flags = host_flags;
	t->word_flags = word_flags;
	if (word_flags)
		emit_save_flags(out(t), true);
	return true;
}
