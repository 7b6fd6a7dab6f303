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
 *     block reads flags before setting them, and before it would only save them again.
 *  3. No table entry or delta survives an instruction: an invalidation is complete when the
 *     processor reaches a poll.
 *  4. A block ends at its page; an instruction that straddles two pages is a block of its own,
 *     entered by the dispatcher only.
 *  5. What is emitted depends on the guest's bytes, the block's place and mode, and the engine's
 *     model and number of processors; on the host address only by its remainder of a cache line.
 *     So a block can be made again, in scratch, for the sake of its cold parts.
 *
 * check_translation() asserts 4 and what the others build on; check_again() 5. 1 to 3 are what the
 * emission test and the differential test look at.
 */
#include "translate_internal.h"

#include <assert.h>

#include "lib/check.h"

size_t soft_translation_bytes(void) { return sizeof(struct translation); }

/* state.rip is that of the block. One length, and a first instruction of at least five bytes. */
static void emit_set_page(struct translation *t)
{
	struct emitter *e = out(t);

	emit_load(e, R11, CPU(state.rip));
	emit_prefixes(e, OP64(0), false, R11, NO_REG, R11);
	emit8(e, 0x8d);
	emit8(e, 0x80 | (R11 & 7) << 3 | (R11 & 7));
	emit32(e, -(uint32_t)(t->rip & PAGE_OFFSET_MASK));
	emit_store(e, R11, CPU(code_page));
	assert(e->out == t->base + FLOATING_ENTRY_BYTES);
}

/* Whether the instruction's translation changes the host's flags, so that it saves them first. */
static bool saves_flags(const struct translation *t, const struct guest_insn *g)
{
	const struct x86_insn *i = &g->insn;

	switch (i->encoding.class) {
	case X86_CLASS_PUSH:
	case X86_CLASS_PUSH_IMMEDIATE:
	case X86_CLASS_PUSH_RM:
	case X86_CLASS_POP:
	case X86_CLASS_LEAVE:
	case X86_CLASS_CALL:
	case X86_CLASS_CALL_INDIRECT:
	case X86_CLASS_JMP_INDIRECT:
	case X86_CLASS_RET:
	case X86_CLASS_STRING: return true;
	case X86_CLASS_JMP: return !translate_same_page(t, translate_jump_target(t, g));
	default: return x86_insn_has_memory(i) && !x86_insn_is(i, X86_ENC_ADDRESS_ONLY);
	}
}

/*
 * Whether the first thing that happens to flags which come in is that they are saved: they may as
 * well be in flags_word from the begin on.
 */
static bool begins_in_word(const struct translation *t)
{
	if (!t->engine->enters_in_word || t->mode & BLOCK_ALONE)
		return false;
	for (unsigned n = 0; n < t->count && t->insns[n].live_in; n++) {
		if (saves_flags(t, &t->insns[n]))
			return true;
		if (t->insns[n].needs_flags)
			return false;
	}
	return false;
}

/*
 * Of a block that begins with the flags in flags_word, where the indirect entry has them, the
 * direct one saves them.
 */
static void emit_entries(struct translation *t)
{
	struct emitter *e = out(t);
	bool in_word = begins_in_word(t);
	uint8_t *over = NULL;
	bool pads;

	while (((uintptr_t)e->out + 4) & 15)
		emit8(e, 0xcc);
	emit32(e, (uint32_t)(t->block - t->engine->blocks)); /* block_at() */
	t->base = e->out;
	if (soft_floats(t->mode))
		emit_set_page(t);
	if (in_word)
		over = emit_jmp(e);
	else if (t->insns[0].live_in)
		emit_restore_flags(e);
	pads = t->insns[0].live_in || soft_floats(t->mode);
	emit_nop(e, pads ? -(unsigned)(uintptr_t)e->out & 7 : 8);
	t->block->direct = (uint8_t)(e->out - t->base);
	emit_nop(e, 5); /* soft_replace_by_jump() */
	if (!in_word)
		return;
	emit_save_flags(e, true);
	set_jump(over, e->out);
	t->host_flags = false;
	t->word_flags = true;
}

static void emit_insns(struct translation *t)
{
	struct cold *group = NULL;
	unsigned group_end = 0;

	for (unsigned n = 0; n < t->count && !t->ended; n++) {
		t->at = &t->insns[n];
		if (!group) {
			struct group g = translate_find_group(t, n);

			group_end = n + g.insns;
			group = g.insns ? translate_open_group(t, &g) : NULL;
		}
		translate_add_map(t, t->at, false);
		t->flags_set = false;
		translate_insn(t);
		translate_follow_flags(t);
		if (group && n + 1 == group_end) {
			translate_close_group(t, group);
			group = NULL;
		}
	}
	/* a group in whose middle a block ended would lead its parts past their lookups */
	assert(!group && !t->grouped && !t->stack_bytes);
	if (!t->ended && t->next_straddles) {
		translate_save_flags(t);
		translate_exit_constant(t, translate_after_insn(t));
	} else if (!t->ended) {
		translate_exit_direct(t, translate_after_insn(t));
	}
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
	assert(t->block->hot_bytes <= t->block->stubs && t->block->stubs < t->block->host_bytes);
}

/* At t->e.out, the same each time. */
static void emit_block(struct translation *t)
{
	struct block *b = t->block;

	translate_find_live_flags(t);
	emit_entries(t);
	/* where it is going to be, for jumps to itself */
	b->host_offset = (uint32_t)(t->base - t->engine->code_write);
	emit_insns(t);
	if (t->mode & BLOCK_ALONE)
		translate_cold_parts(t, 0);
	b->hot_bytes = (uint16_t)(out(t)->out - t->base);
	translate_ways(t);
	b->host_bytes = (uint16_t)(out(t)->out - t->base);
}

static void begin(struct translation *t, struct soft_engine *e, uint32_t mode, uint64_t rip)
{
	memset(t, 0, offsetof(struct translation, insns));
	t->count = t->cold_count = t->have = t->map_count = t->way_count = 0;
	t->r10_end = NULL;
	t->ended = t->next_straddles = t->word_flags = t->is_again = t->grouped = t->has_strip =
		t->in_strip = false;
	t->stack_bytes = 0;
	t->host_flags = true;
	t->engine = e;
	t->mode = mode;
	t->code_bits = 64;
	if (mode & (MODE_32_BIT | MODE_16_BIT))
		t->code_bits = mode & MODE_32_BIT ? 32 : 16;
	t->flat = !(mode & MODE_NOT_FLAT);
	t->rip = rip;
	t->rip_mask = t->code_bits == 64 ? ~0ull : 0xffffffffu;
}

/* The maps, and what the block is made again from. */
static void keep(struct translation *t, struct block *b)
{
	struct soft_engine *e = t->engine;
	uint8_t *kept = e->kept + b->kept_first;

	memcpy(e->maps + b->map_first, t->maps, t->map_count * sizeof(*t->maps));
	b->maps = (uint16_t)t->map_count;
	memcpy(kept, t->bytes, b->guest_bytes);
	for (unsigned n = 0; n < t->way_count; n++)
		memcpy(kept + b->guest_bytes + n * sizeof(struct way_out), &t->ways[n].out,
		       sizeof(struct way_out));
	soft_take_block(e, b, (size_t)(out(t)->out - e->code_write),
			(unsigned)(b->guest_bytes + t->way_count * sizeof(struct way_out)));
}

struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint64_t second_gpa, uint32_t mode,
			     struct fault *fault)
{
	struct soft_engine *e = cpu->engine;
	struct translation *t = e->translation;
	const struct guest_insn *last;
	struct block *b;

	begin(t, e, mode, cpu->state.rip);
	t->cs_base = t->code_bits == 64 ? 0 : cpu->state.segment[X86_CS].base;
	t->page = (t->cs_base + t->rip) >> 12;
	t->source = soft_hva(e, gpa);
	t->source_bytes = PAGE_BYTES - (gpa & PAGE_OFFSET_MASK);
	if (translate_gather(t, cpu, second_gpa, fault))
		return NULL;
	b = t->block = soft_next_block(e);
	last = &t->insns[t->count - 1];
	b->gva = t->rip;
	b->gpa = gpa;
	b->mode = (uint16_t)mode;
	b->form = t->next_straddles ? BLOCK_BEFORE_STRADDLER : BLOCK_WHOLE;
	b->insns = (uint8_t)t->count;
	b->guest_bytes = (uint16_t)(last->rip + last->insn.length - t->rip);
	if ((gpa & PAGE_OFFSET_MASK) + b->guest_bytes > PAGE_BYTES)
		b->mode |= BLOCK_STRADDLES;
	out(t)->out = e->code_write + soft_open_region(e)->used;
	emit_block(t);
	CHECK(check_translation(t));
	keep(t, b);
	cpu->translations++;
	return b;
}

/* Its cold parts know where they are when the hot code is where the block is. */
static void move_cold(struct translation *t, ptrdiff_t by)
{
	for (unsigned n = 0; n < t->cold_count; n++) {
		struct cold *c = &t->cold[n];

		for (unsigned k = 0; k < sizeof(c->from) / sizeof(*c->from); k++)
			c->from[k] = c->from[k] ? c->from[k] + by : NULL;
		c->crossing = c->crossing ? c->crossing + by : NULL;
		c->lookup = c->lookup ? c->lookup + by : NULL;
		c->back = c->back ? c->back + by : NULL;
		c->after = c->after ? c->after + by : NULL;
	}
}

/* Invariant 7 of code.h: the hot code, but for links. */
static void check_again(const struct translation *t, const struct block *b,
			const struct block *again)
{
	const uint8_t *code = t->engine->code_write + b->host_offset;
	const uint8_t *made = t->base;
	unsigned different = 0;

	for (unsigned n = 0; n < again->hot_bytes; n++)
		different += code[n] != made[n];
	/* entries of a dead block, and the jumps that lead somewhere */
	assert(different <= 10 + 4u * t->way_count + 4 * t->cold_count);
}

static void translate_again(struct soft_engine *e, const struct block *b)
{
	struct translation *t = e->translation;
	uint8_t *entry = e->scratch + CACHE_LINE_BYTES + b->host_offset % CACHE_LINE_BYTES;
	struct block again = *b;

	begin(t, e, soft_key_mode(b), b->gva);
	t->is_again = true;
	t->block = &again;
	/* of CS only the part within a page says anything */
	t->cs_base = (b->gpa - b->gva) & PAGE_OFFSET_MASK;
	t->page = (t->cs_base + t->rip) >> 12;
	t->source = e->kept + b->kept_first;
	translate_gather_again(t, b);
	out(t)->out = entry - sizeof(uint32_t);
	emit_block(t);
	assert(t->base == entry && again.host_bytes == b->host_bytes && again.stubs == b->stubs &&
	       again.direct == b->direct);
	CHECK(check_again(t, b, &again));
	move_cold(t, e->code_write + b->host_offset - entry);
}

/* The part's code, description and maps; NULL: what did not fit is not there. */
static void emit_part(struct translation *t, struct block *b, struct cold *c)
{
	struct soft_engine *e = t->engine;
	struct block *part = soft_next_block(e);
	unsigned cold_count = t->cold_count;

	t->is_again = false;
	t->block = b;
	t->map_count = 0;
	t->base = out(t)->out = e->code_write + soft_open_region(e)->used;
	part->form = BLOCK_PART;
	part->parent = (uint32_t)(b - e->blocks);
	part->parent_times_reused = e->regions[soft_region_of(e, b->host_offset)].times_reused;
	part->host_offset = (uint32_t)(t->base - e->code_write);
	translate_cold_part(t, c);
	translate_cold_parts(t, cold_count);
	part->hot_bytes = part->host_bytes = (uint16_t)(out(t)->out - t->base);
	part->maps = (uint16_t)t->map_count;
	memcpy(e->maps + part->map_first, t->maps, t->map_count * sizeof(*t->maps));
	soft_take_block(e, part, (size_t)(out(t)->out - e->code_write), 0);
	e->counts.parts++;
}

void *soft_translate_part(struct soft_engine *e, struct block *b, unsigned stub)
{
	struct translation *t = e->translation;
	uint8_t *first = e->code_write + b->host_offset + b->stubs;
	uint8_t *begin;
	struct cold *c;
	unsigned index;

	translate_again(e, b);
	index = t->ways[stub].cold;
	c = &t->cold[index];
	begin = e->code_write + soft_open_region(e)->used;
	emit_part(t, b, c);
	for (unsigned n = STUBS_OF_ENTRIES; n < t->way_count; n++)
		if (t->ways[n].cold == index)
			soft_replace_by_jump(first + soft_stub_offset(n),
					     t->ways[n].crossing ? begin : c->slow);
	return e->code_run + ((t->ways[stub].crossing ? begin : c->slow) - e->code_write);
}

void soft_leave_at_stub(struct soft_cpu *cpu, const struct block *b, unsigned stub)
{
	struct translation *t = cpu->engine->translation;
	/* from where it was made to where it is executed */
	uint64_t moved = soft_page_rip(cpu, b) + (b->gpa & PAGE_OFFSET_MASK) - b->gva;
	const struct cold *c;

	translate_again(cpu->engine, b);
	c = &t->cold[t->ways[stub].cold];
	if (c->kind == COLD_POLL) {
		cpu->state.rip = moved + c->target;
		if (!c->flags_in_word)
			cpu->flags_word = cpu->way_flags;
		return;
	}
	cpu->state.rip = moved + t->insns[c->insn].rip;
	cpu->pending |= PENDING_SINGLE;
}
