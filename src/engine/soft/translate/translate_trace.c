/*
 * Traces: blocks that go on where a jump leads, as long as that is in their page. Jumps and calls
 * by displacement are followed, and a conditional jump backwards, which is mostly a loop's; of one
 * forwards the block goes on behind it. So entries, polls and lookups that groups share are those
 * of one block, and which flags are looked at later is known across jumps.
 *
 *   bytes   of the instructions, in the order in which they are executed: what is kept, and what
 *           pc maps count in. Which jumps were followed can be seen in them (follow()).
 *
 *  1. No instruction is in a trace twice: what leads back ends it, or makes its loop another block.
 *  2. A trace depends on its whole page: whatever is written there takes it back.
 *
 * check_followed() asserts 1. It would cost more than it gains where code is executed a few times,
 * and is done of blocks that are hot (code/trace.c).
 *
 * Left out: returns, indirect jumps, other modes than 64 bits.
 */
#include <assert.h>

#include "lib/check.h"
#include "translate_internal.h"

enum { TRACE_ENOUGH_INSNS = 32 };

/* Where in its page each instruction lies. */
struct trace { uint16_t place[MAX_INSNS]; unsigned count; };

static bool is_in(const struct trace *trace, unsigned place)
{
	for (unsigned n = 0; n < trace->count; n++)
		if (trace->place[n] == place)
			return true;
	return false;
}

/*
 * Whether the block goes on where the instruction leads that is its last so far: *place, which was
 * where it begins.
 */
static bool follow(const struct trace *trace, const struct x86_insn *insn, unsigned *place)
{
	const uint64_t target = *place + insn->length + insn->imm;
	const unsigned class = insn->encoding.class;

	if (class != X86_CLASS_JMP && class != X86_CLASS_CALL && class != X86_CLASS_JCC)
		return false;
	if (target >= PAGE_BYTES || (class == X86_CLASS_JCC && target > *place) ||
	    is_in(trace, (unsigned)target))
		return false;
	*place = (unsigned)target;
	return true;
}

uint64_t translate_side_target(const struct translation *translation,
			       const struct guest_insn *guest_insn)
{
	if (guest_insn->is_followed)
		return (guest_insn->rip + guest_insn->insn.length) & translation->rip_mask;
	return translate_jump_target(translation, guest_insn);
}

/* From the page, so many bytes of which are in the block already. False: there is none. */
static bool take_insn(struct translation *translation, const uint8_t *page, unsigned place,
		      unsigned at)
{
	struct x86_insn *insn = &translation->insns[translation->count].insn;
	unsigned left = PAGE_BYTES - place;
	unsigned bytes = left < X86_INSN_MAX_BYTES ? left : X86_INSN_MAX_BYTES;

	memcpy(translation->bytes + at, page + place, bytes);
	return !x86_decode(translation->bytes + at, bytes, translation->code_bits, insn) &&
	       cpu_model_allows(translation->engine->model, insn);
}

/* The place goes on behind the instruction that is the last, or where that leads. */
static void go_on(struct translation *translation, struct trace *trace, unsigned *place)
{
	struct guest_insn *last = &translation->insns[translation->count - 1];

	trace->place[trace->count++] = (uint16_t)*place;
	last->is_followed = follow(trace, &last->insn, place);
	if (!last->is_followed)
		*place += last->insn.length;
}

static bool leads_to_begin(const struct translation *translation, const struct guest_insn *last)
{
	return last->insn.encoding.class == X86_CLASS_JCC &&
	       translate_jump_target(translation, last) == translation->rip;
}

static bool is_enough(const struct translation *translation, bool loops)
{
	const struct guest_insn *last = &translation->insns[translation->count - 1];
	const unsigned enough = loops ? ENOUGH_INSNS : TRACE_ENOUGH_INSNS;

	if (last->is_followed)
		return false;
	return x86_insn_is(&last->insn, X86_ENC_ENDS_BLOCK) ||
	       (last->insn.encoding.class == X86_CLASS_JCC && translation->count >= enough);
}

/* Invariant 1. */
void check_followed(const struct translation *translation)
{
	for (unsigned n = 0; n < translation->count; n++)
		for (unsigned k = 0; k < n; k++)
			assert(translation->insns[n].rip != translation->insns[k].rip);
}

/* Whether anything is followed. */
static bool is_worth_it(struct translation *translation)
{
	bool follows = false;

	if (!translation->count)
		return false;
	translation->insns[translation->count - 1].is_followed = false;
	CHECK(check_followed(translation));
	for (unsigned n = 0; n < translation->count; n++)
		follows |= translation->insns[n].is_followed;
	return follows;
}

bool translate_gather_trace(struct translation *translation, const uint8_t *page)
{
	const uint64_t page_rip = translation->rip & ~(uint64_t)PAGE_OFFSET_MASK;
	unsigned place = translation->rip & PAGE_OFFSET_MASK;
	struct trace trace = { .count = 0 };
	bool loops = false;
	unsigned at = 0;

	while (translation->count < MAX_INSNS && place < PAGE_BYTES && !is_in(&trace, place)) {
		struct guest_insn *last = &translation->insns[translation->count];

		if (!take_insn(translation, page, place, at)) {
			if (place > PAGE_BYTES - X86_INSN_MAX_BYTES) /* it may straddle */
				return false;
			break;
		}
		translate_append(translation, page_rip + place, at);
		at += last->insn.length;
		loops |= leads_to_begin(translation, last);
		if (translate_ends_before_loop(translation))
			break;
		go_on(translation, &trace, &place);
		if (is_enough(translation, loops))
			break;
	}
	return is_worth_it(translation);
}

void translate_gather_trace_again(struct translation *translation, const struct block *b)
{
	const uint64_t page_rip = translation->rip & ~(uint64_t)PAGE_OFFSET_MASK;
	unsigned place = translation->rip & PAGE_OFFSET_MASK;
	struct trace trace = { .count = 0 };
	unsigned at = 0;

	while (translation->count < b->insns) {
		struct guest_insn *last = &translation->insns[translation->count];

		x86_decode(translation->source + at, b->guest_bytes - at, translation->code_bits,
			   &last->insn);
		translate_append(translation, page_rip + place, at);
		at += last->insn.length;
		go_on(translation, &trace, &place);
	}
	translation->insns[translation->count - 1].is_followed = false;
}

unsigned soft_trace_place(const struct soft_engine *engine, const struct block *b, unsigned at)
{
	const uint8_t *kept = engine->kept + b->kept_first;
	unsigned place = b->gpa & PAGE_OFFSET_MASK;
	struct trace trace = { .count = 0 };
	unsigned n = 0;

	while (n < at && trace.count < MAX_INSNS) {
		struct x86_insn insn;

		if (x86_decode(kept + n, b->guest_bytes - n, 64, &insn))
			break;
		n += insn.length;
		trace.place[trace.count++] = (uint16_t)place;
		if (!follow(&trace, &insn, &place))
			place += insn.length;
	}
	return place;
}
