/*
 * The instructions of a block: bytes, decoded, and which arithmetic flags somebody looks at later.
 *
 * The page is read under the lock, after its protection, from the frame that was walked, and each
 * byte once: what is decoded is what is kept.
 */
#include <errno.h>

#include "translate_internal.h"

/* The first so many bytes are in t->bytes. */
static void have_bytes(struct translation *t, unsigned bytes)
{
	enum { AT_ONCE_BYTES = 64 };
	unsigned until = (bytes + AT_ONCE_BYTES - 1) & ~(unsigned)(AT_ONCE_BYTES - 1);

	if (bytes <= t->have)
		return;
	until = until < t->source_bytes ? until : t->source_bytes;
	memcpy(t->bytes + t->have, t->source + t->have, until - t->have);
	t->have = until;
}

/* The instruction that begins in the last bytes of its page, alone; -EFAULT: it has no second. */
static int gather_straddler(struct translation *t, uint64_t second_gpa, struct guest_insn *g)
{
	if (!second_gpa)
		return -EFAULT;
	memcpy(t->bytes + t->have, soft_hva(t->engine, second_gpa), X86_INSN_MAX_BYTES - t->have);
	t->mode |= BLOCK_ALONE; /* and never chained */
	return x86_decode(t->bytes, X86_INSN_MAX_BYTES, t->code_bits, &g->insn);
}

static void append(struct translation *t, struct guest_insn *g, unsigned at)
{
	g->rip = (t->rip + at) & t->rip_mask;
	t->count++;
}

static bool is_beyond_limit(const struct translation *t, const struct soft_cpu *cpu, unsigned at)
{
	return t->code_bits != 64 && t->rip + at > cpu->state.segment[X86_CS].limit;
}

/* *fault comes with that of a second page that is not there. */
int translate_gather(struct translation *t, struct soft_cpu *cpu, uint64_t second_gpa,
		     struct fault *fault)
{
	unsigned most = t->mode & BLOCK_ALONE ? 1 : MAX_INSNS;

	for (unsigned at = 0; t->count < most && at < t->source_bytes;) {
		struct guest_insn *g = &t->insns[t->count];
		unsigned left = t->source_bytes - at;
		unsigned available = left < X86_INSN_MAX_BYTES ? left : X86_INSN_MAX_BYTES;
		int error;

		have_bytes(t, at + available);
		error = x86_decode(t->bytes + at, available, t->code_bits, &g->insn);
		if (error == -EAGAIN && t->count) {
			t->next_straddles = true;
			break;
		}
		if (error == -EAGAIN)
			error = gather_straddler(t, second_gpa, g);
		if (error == -EFAULT)
			return error;
		if (!error && !cpu_model_allows(t->engine->model, &g->insn))
			error = -EINVAL;
		if (!error && is_beyond_limit(t, cpu, at + g->insn.length - 1))
			error = -ERANGE;
		if (error && t->count)
			break;
		if (error) {
			*fault = (struct fault){ .vector = error == -EINVAL ? EXC_UD : EXC_GP,
						 .has_code = error != -EINVAL };
			return -EFAULT;
		}
		append(t, g, at);
		at += g->insn.length;
		if (x86_insn_is(&g->insn, X86_ENC_ENDS_BLOCK))
			break;
	}
	return 0;
}

void translate_gather_again(struct translation *t, const struct block *b)
{
	for (unsigned at = 0; t->count < b->insns;) {
		struct guest_insn *g = &t->insns[t->count];

		x86_decode(t->source + at, b->guest_bytes - at, t->code_bits, &g->insn);
		append(t, g, at);
		at += g->insn.length;
	}
	t->next_straddles = b->form == BLOCK_BEFORE_STRADDLER;
}

/* Does it leave the block in its middle? All flags may be looked at there. */
static bool is_side_exit(const struct x86_insn *i)
{
	return i->encoding.class == X86_CLASS_JCC || i->encoding.class == X86_CLASS_LOOP;
}

void translate_find_live_flags(struct translation *t)
{
	uint8_t live = X86_ALL_FLAGS;

	for (unsigned n = t->count; n-- > 0;) {
		struct guest_insn *g = &t->insns[n];
		const struct x86_encoding *e = &g->insn.encoding;
		uint8_t surely_written = e->flags_written & (uint8_t)~x86_flags_kept(&g->insn);

		if (is_side_exit(&g->insn)) {
			g->needs_flags = true;
			live = X86_ALL_FLAGS;
		} else {
			live &= (uint8_t)~surely_written;
			g->needs_flags = e->flags_read || (e->flags_written && live);
			live |= e->flags_read;
		}
		g->live_in = live;
	}
}
