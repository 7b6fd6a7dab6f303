/*
 * The streams of a loop's body: which of its accesses go through the same registers, and how far
 * those go on each iteration. Of a register that is a copy of another one it is the other one that
 * goes on.
 */
#include "translate_strip.h"

enum { STREAM_BYTES = 256, STRIDE_MOST = 256, DOUBLED_INSNS = 12 };

/*
 * A register as an address at some instruction names it: what it was at the top of the body, and
 * how it goes on.
 */
struct travel {
	bool is_known;
	uint8_t reg;    /* at the top */
	int32_t by;     /* an iteration, or: */
	uint8_t by_reg;
	bool is_wide;   /* that is of 64 bits */
	int32_t ahead;  /* of what it was at the top, at that instruction */
	bool is_narrow; /* it goes on, or was copied, in 32 bits */
};

static bool is_whole_register(const struct x86_insn *insn)
{
	return !insn->kind && insn->has_modrm && insn->mod == 3 && insn->operand_bytes >= 4 &&
	       !x86_insn_is(insn, X86_ENC_RM8 | X86_ENC_REG8);
}

static bool is_constant(const struct strip *strip, uint8_t reg)
{
	for (unsigned n = 0; n < strip->jump; n++)
		if (translate_changes(&strip->translation->insns[n].insn, reg))
			return false;
	return true;
}

/* MOV between registers. */
static bool copies_from(const struct x86_insn *insn, uint8_t to, uint8_t *ret_from)
{
	enum { MOV_TO_RM = 0x89, MOV_FROM_RM = 0x8b };
	bool to_rm = insn->opcode == MOV_TO_RM;

	if (insn->map || insn->pp || !is_whole_register(insn) ||
	    (!to_rm && insn->opcode != MOV_FROM_RM) || (to_rm ? insn->rm : insn->reg) != to)
		return false;
	*ret_from = to_rm ? insn->reg : insn->rm;
	return true;
}

/* By LEA, INC, DEC, ADD or SUB of a constant; in 32 bits upwards only. */
static bool steps_by_constant(const struct x86_insn *insn, uint8_t reg, struct travel *travel)
{
	int64_t by = (int64_t)insn->imm;

	if (!insn->kind && insn->encoding.class == X86_CLASS_LEA && insn->reg == reg &&
	    insn->base == reg && insn->index == X86_NO_REGISTER && insn->operand_bytes == 8 &&
	    insn->address_bytes == 8) {
		travel->by = insn->disp;
		return true;
	}
	if (!is_whole_register(insn) || insn->rm != reg)
		return false;
	switch (insn->encoding.operation) {
	case X86_OPERATION_INC: travel->by = 1; break;
	case X86_OPERATION_DEC: travel->by = -1; break;
	case X86_OPERATION_ADD:
	case X86_OPERATION_SUB:
		if (!insn->imm_bytes || by < -STRIDE_MOST || by > STRIDE_MOST)
			return false;
		travel->by = (int32_t)by;
		if (insn->encoding.operation == X86_OPERATION_SUB)
			travel->by = -travel->by;
		break;
	default: return false;
	}
	travel->is_narrow |= insn->operand_bytes == 4;
	return insn->operand_bytes == 8 || travel->by >= 0;
}

/* By ADD of a register that stays. */
static bool steps_by_register(const struct strip *strip, const struct x86_insn *insn, uint8_t reg,
			      struct travel *travel)
{
	bool to_reg = x86_insn_is(insn, X86_ENC_REG_WRITE);

	if (insn->encoding.operation != X86_OPERATION_ADD || insn->imm_bytes ||
	    !is_whole_register(insn) || (to_reg ? insn->reg : insn->rm) != reg)
		return false;
	travel->by_reg = to_reg ? insn->rm : insn->reg;
	travel->is_wide = insn->operand_bytes == 8;
	travel->is_narrow |= !travel->is_wide;
	return is_constant(strip, travel->by_reg);
}

/* The only instruction of the body that changes the register; BODY_INSNS: none, or more. */
static unsigned only_change(const struct strip *strip, uint8_t reg)
{
	unsigned at = BODY_INSNS;

	for (unsigned n = 0; n < strip->jump; n++) {
		if (!translate_changes(&strip->translation->insns[n].insn, reg))
			continue;
		if (at != BODY_INSNS)
			return BODY_INSNS;
		at = n;
	}
	return at;
}

/* A register that is named at instruction n, and is no copy of another one. */
static struct travel travel_of(const struct strip *strip, uint8_t reg, unsigned n)
{
	struct travel travel = { .reg = reg, .by_reg = NO_REG };
	unsigned at = BODY_INSNS;
	const struct x86_insn *step;

	travel.is_known = reg == X86_NO_REGISTER || is_constant(strip, reg);
	if (!travel.is_known)
		at = only_change(strip, reg);
	if (at == BODY_INSNS)
		return travel;
	step = &strip->translation->insns[at].insn;
	if (steps_by_constant(step, reg, &travel)) {
		travel.is_known = true;
		travel.ahead = n > at ? travel.by : 0;
	} else {
		travel.is_known =
			steps_by_register(strip, step, reg, &travel) && n <= at;
	}
	return travel;
}

/* The same, or the one that it is a copy of, which was made before in the same iteration. */
static struct travel original_of(const struct strip *strip, uint8_t reg, unsigned n)
{
	struct travel travel = travel_of(strip, reg, n);
	unsigned at = travel.is_known ? BODY_INSNS : only_change(strip, reg);
	const struct x86_insn *copy;
	uint8_t from;

	if (at >= n)
		return travel;
	copy = &strip->translation->insns[at].insn;
	if (!copies_from(copy, reg, &from))
		return travel;
	travel = travel_of(strip, from, at);
	travel.is_narrow |= copy->operand_bytes == 4;
	return travel;
}

static bool moves(const struct travel *travel) { return travel->by || travel->by_reg != NO_REG; }

/* The stream of an access alone. */
static bool begin_stream(const struct strip *strip, unsigned n, unsigned bytes,
			 struct stream *ret)
{
	const struct x86_insn *insn = &strip->translation->insns[n].insn;
	struct travel base = original_of(strip, insn->base, n);
	struct travel index = original_of(strip, insn->index, n);
	bool both = insn->base != X86_NO_REGISTER && insn->index != X86_NO_REGISTER;
	int32_t at = insn->disp;

	if (!base.is_known || !index.is_known || (moves(&base) && moves(&index)) ||
	    (base.is_narrow && index.is_narrow) ||
	    (index.by_reg != NO_REG && insn->scale_log2) || at > INT32_MAX / 2 ||
	    at < INT32_MIN / 2)
		return false;
	at += base.ahead + index.ahead * (1 << insn->scale_log2);
	*ret = (struct stream){ .base = base.reg,
				.index = index.reg,
				.scale_log2 = insn->scale_log2,
				.low = at,
				.high = at + (int32_t)bytes,
				.stride = base.by + index.by * (1 << insn->scale_log2),
				.stride_reg = base.by_reg != NO_REG ? base.by_reg : index.by_reg,
				.narrow_reg = NO_REG,
				.base_in_delta = both && !moves(&base),
				.index_in_delta = both && moves(&base),
				.write = x86_insn_is(insn, X86_ENC_MEM_WRITE) };
	ret->stride_is_wide = base.is_wide || index.is_wide;
	if (base.is_narrow || index.is_narrow)
		ret->narrow_reg = base.is_narrow ? base.reg : index.reg;
	return ret->stride <= STRIDE_MOST && ret->stride >= -STRIDE_MOST &&
	       (ret->narrow_reg == NO_REG || ret->stride >= 0);
}

static bool joins(struct stream *stream, const struct stream *access)
{
	int32_t low = access->low < stream->low ? access->low : stream->low;
	int32_t high = access->high > stream->high ? access->high : stream->high;

	if (stream->base != access->base || stream->index != access->index ||
	    stream->scale_log2 != access->scale_log2 || stream->stride != access->stride ||
	    stream->stride_reg != access->stride_reg ||
	    stream->narrow_reg != access->narrow_reg || high - low > STREAM_BYTES)
		return false;
	stream->low = low;
	stream->high = high;
	stream->write |= access->write;
	stream->stride_is_wide |= access->stride_is_wide;
	return true;
}

/* The access joins a stream, or begins one. */
static bool add_access(struct strip *strip, unsigned n, unsigned bytes)
{
	struct stream access;
	unsigned k = 0;

	if (!begin_stream(strip, n, bytes, &access))
		return false;
	while (k < strip->streams && !joins(&strip->stream[k], &access))
		k++;
	if (k == STREAMS)
		return false;
	if (k == strip->streams)
		strip->stream[strip->streams++] = access;
	strip->used_by[n] = (uint8_t)k;
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

/* Streams that are written come first: the last needs the write table's register. */
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

/* All streams that move go by one register, or all by constants, of which the widest counts. */
static bool find_stride(struct strip *strip)
{
	strip->stride_reg = NO_REG;
	for (unsigned n = 0; n < strip->streams; n++) {
		int32_t stride = strip->stream[n].stride;
		int32_t width = stride < 0 ? -stride : stride;

		strip->stride = width > strip->stride ? width : strip->stride;
		if (strip->stream[n].stride_reg != NO_REG)
			strip->stride_reg = strip->stream[n].stride_reg;
		strip->stride_is_wide |= strip->stream[n].stride_is_wide;
	}
	for (unsigned n = 0; n < strip->streams; n++)
		if (strip->stream[n].stride_reg != strip->stride_reg &&
		    (strip->stream[n].stride_reg != NO_REG || strip->stream[n].stride))
			return false;
	return true;
}

/* How many lookups an ordinary iteration has: accesses of a stream that follow each other share. */
static void count_lookups(struct strip *strip)
{
	unsigned last = STREAMS;

	for (unsigned n = 0; n < strip->jump; n++) {
		const struct x86_insn *insn = &strip->translation->insns[n].insn;

		if (!x86_insn_has_memory(insn) || insn->encoding.class != X86_CLASS_DATA)
			continue;
		strip->lookups += strip->used_by[n] != last;
		last = strip->used_by[n];
	}
}

bool translate_find_streams(struct strip *strip)
{
	if (strip->jump >= BODY_INSNS || strip->translation->code_bits != 64 ||
	    strip->translation->mode & MODE_ALIGNED ||
	    !strip->translation->engine->makes_strips)
		return false;
	for (unsigned n = 0; n < strip->jump; n++)
		if (strip->translation->insns[n].is_followed || !add_insn(strip, n))
			return false;
	strip->copies = strip->jump <= DOUBLED_INSNS ? 2 : 1;
	strip->exit_count = 0;
	count_lookups(strip);
	return sort_streams(strip) && find_stride(strip);
}
