/*
 * The instructions of a block: bytes, decoded, and which arithmetic flags somebody looks at later.
 *
 * The page is read under the lock, after its protection, from the frame that was walked, and each
 * byte once: what is decoded is what is kept. Of a draft it is read before both, and compared with
 * them (translate_draft.c).
 */
#include <errno.h>

#include "translate_internal.h"

/* The first so many bytes are in t->bytes. */
static void have_bytes(struct translation *translation, unsigned bytes)
{
	enum { AT_ONCE_BYTES = 64 };
	unsigned until = (bytes + AT_ONCE_BYTES - 1) & ~(unsigned)(AT_ONCE_BYTES - 1);

	if (bytes <= translation->have)
		return;
	until = until < translation->source_bytes ? until : translation->source_bytes;
	memcpy(translation->bytes + translation->have, translation->source + translation->have,
	       until - translation->have);
	translation->have = until;
}

/* The instruction that begins in the last bytes of its page, alone; -EFAULT: it has no second. */
static int gather_straddler(struct translation *translation, uint64_t second_page,
			    struct guest_insn *guest_insn)
{
	if (!second_page)
		return -EFAULT;
	memcpy(translation->bytes + translation->have,
	       soft_hva(translation->engine, (second_page - 1) * PAGE_BYTES),
	       X86_INSN_MAX_BYTES - translation->have);
	translation->mode |= BLOCK_ALONE; /* and never chained */
	return x86_decode(translation->bytes, X86_INSN_MAX_BYTES, translation->code_bits,
			  &guest_insn->insn);
}

void translate_append(struct translation *translation, uint64_t rip, unsigned at)
{
	struct guest_insn *guest_insn = &translation->insns[translation->count++];

	guest_insn->rip = rip & translation->rip_mask;
	guest_insn->at = (uint16_t)at;
	guest_insn->is_followed = false;
}

static bool is_enough(const struct translation *translation, const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_ENDS_BLOCK) ||
	       (insn->encoding.class == X86_CLASS_JCC && translation->count >= ENOUGH_INSNS);
}

bool translate_ends_before_loop(struct translation *translation)
{
	const struct guest_insn *last = &translation->insns[translation->count - 1];

	if (last->insn.encoding.class != X86_CLASS_JCC || !translation->engine->makes_strips)
		return false;
	for (unsigned n = 1; n < translation->count; n++)
		if (translation->insns[n].rip == translate_jump_target(translation, last)) {
			translation->count = n;
			return true;
		}
	return false;
}

static bool is_beyond_limit(const struct translation *translation, uint32_t limit, unsigned at)
{
	return translation->code_bits != 64 && translation->rip + at > limit;
}

/* *fault comes with that of a second page that is not there. */
int translate_gather(struct translation *translation, const struct code_place *place,
		     struct fault *fault)
{
	unsigned most = translation->mode & BLOCK_ALONE ? 1 : MAX_INSNS;

	for (unsigned at = 0; translation->count < most && at < translation->source_bytes;) {
		struct guest_insn *guest_insn = &translation->insns[translation->count];
		unsigned left = translation->source_bytes - at;
		unsigned available = left < X86_INSN_MAX_BYTES ? left : X86_INSN_MAX_BYTES;
		int error;

		have_bytes(translation, at + available);
		error = x86_decode(translation->bytes + at, available, translation->code_bits,
				   &guest_insn->insn);
		if (error == -EAGAIN && translation->count) {
			translation->next_straddles = true;
			break;
		}
		if (error == -EAGAIN)
			error = gather_straddler(translation, place->second_page, guest_insn);
		if (error == -EFAULT)
			return error;
		if (!error && !cpu_model_allows(translation->engine->model, &guest_insn->insn))
			error = -EINVAL;
		if (!error && is_beyond_limit(translation, place->cs_limit,
					      at + guest_insn->insn.length - 1))
			error = -ERANGE;
		if (error && translation->count)
			break;
		if (error) {
			*fault = (struct fault){ .vector = error == -EINVAL ? EXC_UD : EXC_GP,
						 .has_code = error != -EINVAL };
			return -EFAULT;
		}
		translate_append(translation, translation->rip + at, at);
		at += guest_insn->insn.length;
		if (translate_ends_before_loop(translation) ||
		    is_enough(translation, &guest_insn->insn))
			break;
	}
	return 0;
}

void translate_gather_again(struct translation *translation, const struct block *b)
{
	if (b->form == BLOCK_TRACE) {
		translate_gather_trace_again(translation, b);
		return;
	}
	for (unsigned at = 0; translation->count < b->insns;) {
		struct guest_insn *guest_insn = &translation->insns[translation->count];

		x86_decode(translation->source + at, b->guest_bytes - at, translation->code_bits,
			   &guest_insn->insn);
		translate_append(translation, translation->rip + at, at);
		at += guest_insn->insn.length;
	}
	translation->next_straddles = b->form == BLOCK_BEFORE_STRADDLER;
}

/* Does it leave the block in its middle? All flags may be looked at there. */
static bool is_side_exit(const struct x86_insn *insn)
{
	return insn->encoding.class == X86_CLASS_JCC || insn->encoding.class == X86_CLASS_LOOP;
}

void translate_find_live_flags(struct translation *translation)
{
	uint8_t live = X86_ALL_FLAGS;

	for (unsigned n = translation->count; n-- > 0;) {
		struct guest_insn *guest_insn = &translation->insns[n];
		const struct x86_encoding *encoding = &guest_insn->insn.encoding;
		uint8_t surely_written =
			encoding->flags_written & (uint8_t)~x86_flags_kept(&guest_insn->insn);

		if (is_side_exit(&guest_insn->insn)) {
			guest_insn->needs_flags = true;
			live = X86_ALL_FLAGS;
		} else {
			live &= (uint8_t)~surely_written;
			guest_insn->needs_flags =
				encoding->flags_read || (encoding->flags_written && live);
			live |= encoding->flags_read;
		}
		if (!translation->engine->drops_dead_flags)
			live = X86_ALL_FLAGS;
		guest_insn->live_in = live;
	}
}
