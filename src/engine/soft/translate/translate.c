/*
 * From guest code to host code, one block at a time: up to 64 instructions of one page, entered at
 * the top, left at a jump, a system instruction, or a taken conditional branch. The scheme is
 * explained in docs/engine.md.
 *
 * Invariants
 *  1. Between two instructions every guest register is where soft_internal.h says: faults are
 *     precise without repair.
 *  2. Host flags are the guest's wherever a later instruction may read them. At an indirect or
 *     cross-page exit they are in flags_word, and a block's indirect entry brings them back if the
 *     block reads flags before setting them.
 *  3. No table entry or delta survives an instruction: an invalidation is complete when the
 *     processor reaches a poll.
 *  4. A block ends at its page; an instruction that straddles two pages is a block of its own,
 *     entered by the dispatcher only.
 *
 * check_translation() asserts 4 and what the others build on. 1 to 3 are what the emission test and
 * the differential test look at.
 */
#include "translate_internal.h"

#include <assert.h>
#include <errno.h>

#include "lib/check.h"

/* Reads the block's instructions; 0, or a fault when not even the first can be read. */
static int gather(struct translation *t, struct fault *fault)
{
	uint64_t rip = t->cpu->state.rip;

	while (t->count < (t->mode & BLOCK_ALONE ? 1u : MAX_INSNS)) {
		struct guest_insn *g = &t->insns[t->count];
		uint64_t linear = t->cs_base + rip;
		size_t left = PAGE_BYTES - (linear & (PAGE_BYTES - 1));
		size_t have = left < 15 ? left : 15;
		int error;

		if (linear >> 12 != t->page)
			break;
		error = soft_read(t->cpu, linear, g->raw, have, ACCESS_EXEC, fault);
		if (error)
			return t->count ? 0 : error;
		error = x86_decode(g->raw, have, t->code_bits, &g->insn);
		if (error == -EAGAIN) {
			t->next_straddles = t->count;
			if (t->count)
				break;
			error = soft_read(t->cpu, linear + have, g->raw + have, 15 - have,
					  ACCESS_EXEC, fault);
			if (error)
				return error;
			error = x86_decode(g->raw, 15, t->code_bits, &g->insn);
			t->mode |= BLOCK_ALONE; /* straddles: alone, and never chained */
		}
		if (!error && !cpu_model_allows(t->engine->model, &g->insn))
			error = -EINVAL;
		if (!error && t->code_bits != 64 &&
		    rip + g->insn.length - 1 > t->cpu->state.segment[X86_CS].limit)
			error = -ERANGE;
		if (error) {
			if (t->count)
				break;
			*fault = (struct fault){ .vector = error == -EINVAL ? EXC_UD : EXC_GP,
						 .has_code = error != -EINVAL };
			return -EFAULT;
		}
		g->rip = rip;
		rip = (rip + g->insn.length) & t->rip_mask;
		t->count++;
		if (x86_insn_is(&g->insn, X86_ENC_ENDS_BLOCK))
			break;
	}
	return 0;
}

/* Does it leave the block in its middle? All flags may be looked at there. */
static bool is_side_exit(const struct x86_insn *i)
{
	return i->encoding.class == X86_CLASS_JCC || i->encoding.class == X86_CLASS_LOOP;
}

static void find_live_flags(struct translation *t)
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

static void emit_entries(struct translation *t)
{
	struct emitter *e = out(t);

	while (((uintptr_t)e->out + 4) & 15)
		emit8(e, 0xcc);
	emit32(e, (uint32_t)(t->block - t->engine->blocks)); /* block_at() */
	t->base = e->out;
	t->block->host_offset = (uint32_t)(e->out - t->engine->code_write);
	if (t->insns[0].live_in)
		emit_restore_flags(e);
	emit_nop(e, t->insns[0].live_in ? -(unsigned)(uintptr_t)e->out & 7 : 8);
	t->block->direct_offset = (uint32_t)(e->out - t->engine->code_write);
	emit_nop(e, 5); /* replace_entry() */
}

/*
 * Where patched entries lead (soft_invalidate): +0 from the direct entry, +the second part from the
 * indirect one.
 */
static void emit_stub(struct translation *t)
{
	struct emitter *e = out(t);

	t->block->stub_offset = (uint32_t)(e->out - t->engine->code_write);
	emit_save_flags(e, true);
	translate_exit_constant(t, t->insns[0].rip);
}

/* Instructions that follow each other within a page, or one that leaves it. */
static void check_translation(const struct translation *t)
{
	const struct guest_insn *last = &t->insns[t->count - 1];
	uint64_t rip = t->block->gva;

	assert(t->count && t->count <= (t->mode & BLOCK_ALONE ? 1 : MAX_INSNS));
	for (unsigned n = 0; n < t->count; n++) {
		const struct guest_insn *g = &t->insns[n];

		assert(g->rip == rip && (t->cs_base + rip) / PAGE_BYTES == t->page);
		assert(n + 1 == t->count || !x86_insn_is(&g->insn, X86_ENC_ENDS_BLOCK));
		rip = (rip + g->insn.length) & t->rip_mask;
	}
	assert(t->mode & BLOCK_ALONE ||
	       (t->cs_base + last->rip + last->insn.length - 1) / PAGE_BYTES == t->page);
	assert(t->block->direct_offset >= t->block->host_offset);
	assert(t->block->stub_offset >= t->block->cold_offset);
}

struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode, struct fault *fault)
{
	static _Thread_local struct translation t;
	struct soft_engine *e = cpu->engine;
	struct block *b = &e->blocks[e->block_count];
	struct cold *group = NULL;
	unsigned group_end = 0;
	uint8_t *start;

	memset(&t, 0, offsetof(struct translation, insns));
	t.count = t.cold_count = 0;
	t.r10_end = NULL;
	t.ended = t.next_straddles = t.word_flags = t.has_strip = t.in_strip = false;
	t.host_flags = true;
	t.cpu = cpu;
	t.engine = e;
	t.mode = mode;
	t.code_bits = x86_code_bits(&cpu->state);
	t.flat = !(t.mode & MODE_NOT_FLAT);
	t.cs_base = t.code_bits == 64 ? 0 : cpu->state.segment[X86_CS].base;
	t.rip_mask = t.code_bits == 64 ? ~0ull : 0xffffffffu;
	t.page = (t.cs_base + cpu->state.rip) >> 12;
	if (gather(&t, fault))
		return NULL;
	find_live_flags(&t);
	memset(b, 0, sizeof(*b));
	b->gva = cpu->state.rip;
	b->gpa = gpa;
	b->mode = mode;
	b->map_first = e->map_count;
	b->guest_bytes =
		(uint16_t)(t.insns[t.count - 1].rip + t.insns[t.count - 1].insn.length - b->gva);
	t.block = b;
	start = t.e.out = e->code_write + e->code_used;
	emit_entries(&t);
	for (unsigned n = 0; n < t.count && !t.ended; n++) {
		t.at = &t.insns[n];
		if (!group) {
			struct group g = translate_find_group(&t, n);

			group_end = n + g.insns;
			group = g.insns ? translate_open_group(&t, &g) : NULL;
		}
		translate_add_map(&t, t.at, false);
		t.flags_set = false;
		translate_insn(&t);
		translate_follow_flags(&t);
		if (group && n + 1 == group_end) {
			translate_close_group(&t, group);
			group = NULL;
		}
	}
	if (!t.ended && t.next_straddles) {
		translate_save_flags(&t);
		translate_exit_constant(&t, translate_after_insn(&t));
	} else if (!t.ended) {
		translate_exit_direct(&t, translate_after_insn(&t));
	}
	b->maps = (uint16_t)(e->map_count - b->map_first);
	b->host_bytes = (uint32_t)(t.e.out - t.base);
	e->code_used += (size_t)(t.e.out - start);
	b->cold_offset = (uint32_t)e->cold_used;
	t.base = start = t.e.out = e->code_write + e->cold_used;
	translate_cold_part(&t);
	emit_stub(&t);
	b->cold_maps = (uint16_t)(e->map_count - b->map_first - b->maps);
	b->cold_bytes = (uint32_t)(t.e.out - start);
	e->cold_used += b->cold_bytes;
	__atomic_store_n(&e->block_count, e->block_count + 1, __ATOMIC_RELEASE);
	cpu->translations++;
	if ((((t.cs_base + b->gva) & PAGE_OFFSET_MASK) + b->guest_bytes) > PAGE_BYTES)
		b->mode |= BLOCK_STRADDLES;
	CHECK(check_translation(&t));
	return b;
}
