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
#include "translate_strip.h"

#include <assert.h>
#include <errno.h>

#include "lib/check.h"

size_t soft_translation_bytes(void) { return sizeof(struct translation); }

/* r11 is RIP. One length, and a first instruction of at least five bytes. */
static void emit_set_page(struct translation *translation)
{
	struct emitter *emitter = out(translation);

	emit_prefixes(emitter, OP64(0), false, R11, NO_REG, R11);
	emit8(emitter, 0x8d);
	emit8(emitter, 0x80 | (R11 & 7) << 3 | (R11 & 7));
	emit32(emitter, -(uint32_t)(translation->rip & PAGE_OFFSET_MASK));
	emit_store(emitter, R11, CPU(code_page));
	assert(emitter->out == translation->base + FLOATING_ENTRY_BYTES);
}

/* Whether the instruction's translation changes the host's flags, so that it saves them first. */
static bool saves_flags(const struct translation *translation, const struct guest_insn *guest_insn)
{
	const struct x86_insn *insn = &guest_insn->insn;

	switch (insn->encoding.class) {
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
	case X86_CLASS_JMP:
		return !translate_same_page(translation,
					    translate_jump_target(translation, guest_insn));
	default: return x86_insn_has_memory(insn) && !x86_insn_is(insn, X86_ENC_ADDRESS_ONLY);
	}
}

/*
 * Whether the first thing that happens to flags which come in is that they are saved: they may as
 * well be in flags_word from the begin on.
 */
static bool begins_in_word(const struct translation *translation)
{
	if (!translation->engine->enters_in_word || translation->mode & BLOCK_ALONE)
		return false;
	for (unsigned n = 0; n < translation->count && translation->insns[n].live_in; n++) {
		if (saves_flags(translation, &translation->insns[n]))
			return true;
		if (translation->insns[n].needs_flags)
			return false;
	}
	return false;
}

/*
 * What becomes a jump when the block is taken back must lie in one word of eight bytes: in the
 * indirect entry, and where the direct one begins, mostly at a multiple of 16, without bytes that
 * are there for nothing else.
 */
static void begin_entries(struct translation *translation)
{
	enum { ALIGNMENT = 16 };
	const unsigned before =
		soft_floats(translation->mode) ? FLOATING_ENTRY_BYTES : JUMP_BYTES;

	while (((uintptr_t)out(translation)->out + sizeof(uint32_t) + before) % ALIGNMENT)
		emit8(out(translation), 0xcc);
}

/*
 * Of a block that begins with the flags in flags_word, where the indirect entry has them, the
 * direct one saves them: its first instruction, a move of three bytes, has prefixes that mean
 * nothing.
 */
static void emit_entries(struct translation *translation)
{
	enum { MOVE_BYTES = 3 };
	struct emitter *emitter = out(translation);
	bool in_word = begins_in_word(translation);
	bool floats = soft_floats(translation->mode);
	uint8_t *over = NULL;

	begin_entries(translation);
	emit32(emitter,
	       (uint32_t)(translation->block - translation->engine->blocks)); /* block_at() */
	translation->base = emitter->out;
	if (floats)
		emit_set_page(translation);
	if (in_word)
		over = floats ? emit_short_jmp(emitter) : emit_jmp(emitter);
	else if (translation->insns[0].live_in)
		translation->restores = emit_jmp(emitter);
	else if (!floats)
		emit_nop(emitter, JUMP_BYTES);
	if (!soft_holds_jump(emitter->out))
		emit_nop(emitter, -(unsigned)(uintptr_t)emitter->out & 7);
	translation->block->direct = (uint8_t)(emitter->out - translation->base);
	/* soft_replace_by_jump() */
	if (!in_word) {
		emit_nop(emitter, JUMP_BYTES);
		return;
	}
	for (unsigned n = MOVE_BYTES; n < JUMP_BYTES; n++)
		emit8(emitter, CS_SEGMENT);
	emit_save_flags(emitter, true);
	if (floats)
		set_short_jump(over, emitter->out);
	else
		set_jump(over, emitter->out);
	translation->host_flags = false;
	translation->word_flags = true;
}

static void emit_insns(struct translation *translation)
{
	struct cold *group = NULL;
	unsigned group_end = 0;

	for (unsigned n = 0; n < translation->count && !translation->ended; n++) {
		translation->at = &translation->insns[n];
		if (!group) {
			struct group found = translate_find_group(translation, n);

			group_end = n + found.insns;
			group = found.insns ? translate_open_group(translation, &found) : NULL;
		}
		translate_add_map(translation, translation->at, false);
		translation->flags_set = false;
		translate_insn(translation);
		translate_follow_flags(translation);
		if (group && n + 1 == group_end) {
			translate_close_group(translation, group);
			group = NULL;
		}
	}
	/* a group in whose middle a block ended would lead its parts past their lookups */
	assert(!group && !translation->grouped && !translation->stack_bytes);
	if (!translation->ended && translation->next_straddles) {
		translate_leave_page(translation, translate_after_insn(translation));
	} else if (!translation->ended) {
		translate_exit_direct(translation, translate_after_insn(translation));
	}
}

/* Instructions that follow each other within a page, or one that leaves it. */
void check_translation(const struct translation *translation)
{
	const struct guest_insn *last = &translation->insns[translation->count - 1];
	uint64_t rip = translation->block->gva;

	assert(translation->count &&
	       translation->count <= (translation->mode & BLOCK_ALONE ? 1 : MAX_INSNS));
	for (unsigned n = 0; n < translation->count; n++) {
		const struct guest_insn *guest_insn = &translation->insns[n];

		assert(guest_insn->rip == rip &&
		       (translation->cs_base + rip) / PAGE_BYTES == translation->page);
		assert(n + 1 == translation->count || guest_insn->is_followed ||
		       !x86_insn_is(&guest_insn->insn, X86_ENC_ENDS_BLOCK));
		rip = guest_insn->is_followed
			      ? translate_jump_target(translation, guest_insn)
			      : (rip + guest_insn->insn.length) & translation->rip_mask;
	}
	assert(translation->mode & BLOCK_ALONE ||
	       (translation->cs_base + last->rip + last->insn.length - 1) / PAGE_BYTES ==
		       translation->page);
	assert(translation->block->hot_bytes <= translation->block->stubs &&
	       translation->block->stubs < translation->block->host_bytes);
}

/* At t->e.out, the same each time. */
void translate_emit_block(struct translation *translation)
{
	struct block *b = translation->block;
	struct strip strip;

	translation->next_site = soft_floats(translation->mode) || translation->is_draft
					 ? b->first_site
					 : translation->engine->sites;
	translate_find_live_flags(translation);
	emit_entries(translation);
	/* where it is going to be, for jumps to itself */
	b->host_offset = (uint32_t)(translation->base - translation->engine->code_write);
	translate_begin_strip(translation, &strip);
	emit_insns(translation);
	if (translation->mode & BLOCK_ALONE)
		translate_cold_parts(translation, 0);
	b->hot_bytes = (uint16_t)(out(translation)->out - translation->base);
	translate_ways(translation);
	b->host_bytes = (uint16_t)(out(translation)->out - translation->base);
}

static void begin(struct translation *translation, struct soft_engine *engine, uint32_t mode,
		  uint64_t rip)
{
	memset(translation, 0, offsetof(struct translation, insns));
	translation->count = translation->cold_count = translation->have = translation->map_count =
		translation->way_count = 0;
	translation->r10_end = translation->return_end = translation->restores =
		translation->missed = NULL;
	translation->ended = translation->next_straddles = translation->word_flags =
		translation->is_again = translation->grouped = translation->in_table =
			translation->in_strip = translation->is_part =
				translation->is_draft = false;
	translation->strip = NULL;
	translation->stack_bytes = 0;
	translation->host_flags = true;
	translation->engine = engine;
	translation->mode = mode;
	translation->code_bits = 64;
	if (mode & (MODE_32_BIT | MODE_16_BIT))
		translation->code_bits = mode & MODE_32_BIT ? 32 : 16;
	translation->flat = !(mode & MODE_NOT_FLAT);
	translation->rip = rip;
	translation->rip_mask = translation->code_bits == 64 ? ~0ull : 0xffffffffu;
}

void translate_keep(struct translation *translation, struct block *b, size_t end)
{
	struct soft_engine *engine = translation->engine;
	uint8_t *kept = engine->kept + b->kept_first;

	memcpy(engine->maps + b->map_first, translation->maps,
	       translation->map_count * sizeof(*translation->maps));
	b->maps = (uint16_t)translation->map_count;
	memcpy(kept, translation->bytes, b->guest_bytes);
	for (unsigned n = 0; n < translation->way_count; n++)
		memcpy(kept + b->guest_bytes + n * sizeof(struct way_out),
		       &translation->ways[n].out, sizeof(struct way_out));
	soft_take_block(
		engine, b, end,
		(unsigned)(b->guest_bytes + translation->way_count * sizeof(struct way_out)));
}

int translate_begin(struct translation *translation, struct soft_engine *engine,
		    const struct code_place *place, struct fault *fault)
{
	begin(translation, engine, place->mode, place->rip);
	translation->cs_base = translation->code_bits == 64 ? 0 : place->cs_base;
	translation->page = (translation->cs_base + translation->rip) >> 12;
	translation->source = soft_hva(engine, place->gpa);
	if (!translation->source) /* of a draft: an overlay was there, and is no more */
		return -EFAULT;
	translation->source_bytes = PAGE_BYTES - (place->gpa & PAGE_OFFSET_MASK);
	return translate_gather(translation, place, fault);
}

void translate_describe(struct translation *translation, const struct code_place *place,
			struct block *b)
{
	const struct guest_insn *last = &translation->insns[translation->count - 1];

	translation->block = b;
	b->gva = translation->rip;
	b->gpa = place->gpa;
	b->mode = (uint16_t)place->mode;
	b->form = translation->next_straddles ? BLOCK_BEFORE_STRADDLER : BLOCK_WHOLE;
	b->insns = (uint8_t)translation->count;
	b->guest_bytes = (uint16_t)(last->at + last->insn.length);
	if ((place->gpa & PAGE_OFFSET_MASK) + b->guest_bytes > PAGE_BYTES)
		b->mode |= BLOCK_STRADDLES;
}

/* In the open region. */
static void emit_and_keep(struct translation *translation, struct block *b)
{
	struct soft_engine *engine = translation->engine;

	out(translation)->out = engine->code_write + soft_open_region(engine)->used;
	if (soft_floats(translation->mode))
		b->first_site = engine->sites;
	translate_emit_block(translation);
	engine->sites = translation->next_site;
	CHECK(check_translation(translation));
	translate_keep(translation, b, (size_t)(out(translation)->out - engine->code_write));
}

struct block *soft_translate(struct soft_engine *engine, const struct code_place *place,
			     struct fault *fault)
{
	struct translation *translation = engine->translation;
	struct block *b;

	if (translate_begin(translation, engine, place, fault))
		return NULL;
	b = soft_next_block(engine);
	translate_describe(translation, place, b);
	emit_and_keep(translation, b);
	return b;
}

struct block *soft_translate_trace(struct soft_engine *engine, const struct code_place *place)
{
	struct translation *translation = engine->translation;
	const uint64_t page = place->gpa & ~(uint64_t)PAGE_OFFSET_MASK;
	const uint8_t *hva = soft_hva(engine, page);
	struct block *b;

	begin(translation, engine, place->mode, place->rip);
	translation->cs_base = 0;
	translation->page = translation->rip >> 12;
	if (!hva || !translate_gather_trace(translation, hva))
		return NULL;
	b = soft_next_block(engine);
	translate_describe(translation, place, b);
	b->form = BLOCK_TRACE;
	b->mode &= (uint16_t)~BLOCK_STRADDLES;
	emit_and_keep(translation, b);
	return b;
}

void translate_move_cold(struct translation *translation, ptrdiff_t by)
{
	for (unsigned n = 0; n < translation->cold_count; n++) {
		struct cold *cold = &translation->cold[n];

		for (unsigned k = 0; k < sizeof(cold->from) / sizeof(*cold->from); k++)
			cold->from[k] = cold->from[k] ? cold->from[k] + by : NULL;
		cold->crossing = cold->crossing ? cold->crossing + by : NULL;
		cold->lookup = cold->lookup ? cold->lookup + by : NULL;
		cold->back = cold->back ? cold->back + by : NULL;
		cold->after = cold->after ? cold->after + by : NULL;
	}
}

/* Invariant 7 of code.h: the hot code, but for links. */
static void check_again(const struct translation *translation, const struct block *b,
			const struct block *again)
{
	const uint8_t *code = translation->engine->code_write + b->host_offset;
	const uint8_t *made = translation->base;
	unsigned different = 0;

	for (unsigned n = 0; n < again->hot_bytes; n++)
		different += code[n] != made[n];
	/* entries of a dead block, and the jumps that lead somewhere */
	assert(different <= 10 + 4u * translation->way_count + 4 * translation->cold_count);
}

static void translate_again(struct soft_engine *engine, const struct block *b)
{
	struct translation *translation = engine->translation;
	uint8_t *entry = engine->scratch + CACHE_LINE_BYTES + b->host_offset % CACHE_LINE_BYTES;
	struct block again = *b;

	begin(translation, engine, soft_key_mode(b), b->gva);
	translation->is_again = true;
	translation->block = &again;
	/* of CS only the part within a page says anything */
	translation->cs_base = (b->gpa - b->gva) & PAGE_OFFSET_MASK;
	translation->page = (translation->cs_base + translation->rip) >> 12;
	translation->source = engine->kept + b->kept_first;
	translate_gather_again(translation, b);
	out(translation)->out = entry - sizeof(uint32_t);
	translate_emit_block(translation);
	assert(translation->base == entry && again.host_bytes == b->host_bytes &&
	       again.stubs == b->stubs && again.direct == b->direct);
	CHECK(check_again(translation, b, &again));
	translate_move_cold(translation, engine->code_write + b->host_offset - entry);
}

/* The part's code, description and maps; NULL: what did not fit is not there. */
static void emit_part(struct translation *translation, struct block *b, struct cold *cold)
{
	struct soft_engine *engine = translation->engine;
	struct block *part = soft_next_block(engine);
	unsigned cold_count = translation->cold_count;

	translation->is_again = false;
	translation->block = b;
	translation->map_count = 0;
	translation->is_part = true;
	translation->next_site = engine->sites;
	translation->base = out(translation)->out =
		engine->code_write + soft_open_region(engine)->used;
	part->form = BLOCK_PART;
	part->parent = (uint32_t)(b - engine->blocks);
	part->parent_times_reused =
		engine->regions[soft_region_of(engine, b->host_offset)].times_reused;
	part->host_offset = (uint32_t)(translation->base - engine->code_write);
	translate_cold_part(translation, cold);
	translate_cold_parts(translation, cold_count);
	part->hot_bytes = part->host_bytes = (uint16_t)(out(translation)->out - translation->base);
	part->maps = (uint16_t)translation->map_count;
	engine->sites = translation->next_site;
	memcpy(engine->maps + part->map_first, translation->maps,
	       translation->map_count * sizeof(*translation->maps));
	soft_take_block(engine, part, (size_t)(out(translation)->out - engine->code_write), 0);
	engine->counts.parts++;
}

void *translate_part(struct translation *translation, struct block *b, unsigned stub)
{
	struct soft_engine *engine = translation->engine;
	uint8_t *first = engine->code_write + b->host_offset + b->stubs;
	uint8_t *begin;
	struct cold *cold;
	unsigned index;

	index = translation->ways[stub].cold;
	cold = &translation->cold[index];
	begin = engine->code_write + soft_open_region(engine)->used;
	emit_part(translation, b, cold);
	for (unsigned n = soft_entry_stubs(b->mode); n < translation->way_count; n++)
		if (translation->ways[n].cold == index)
			soft_replace_by_jump(first + soft_stub_offset(n),
					     translation->ways[n].crossing ? begin : cold->slow);
	return engine->code_run +
	       ((translation->ways[stub].crossing ? begin : cold->slow) - engine->code_write);
}

void *soft_translate_part(struct soft_engine *engine, struct block *b, unsigned stub)
{
	translate_again(engine, b);
	return translate_part(engine->translation, b, stub);
}

void soft_leave_at_stub(struct soft_cpu *cpu, const struct block *b, unsigned stub)
{
	struct translation *translation = cpu->engine->translation;
	/* from where it was made to where it is executed */
	uint64_t moved = soft_page_rip(cpu, b) + (b->gpa & PAGE_OFFSET_MASK) - b->gva;
	const struct cold *cold;

	translate_again(cpu->engine, b);
	cold = &translation->cold[translation->ways[stub].cold];
	if (cold->kind == COLD_POLL || cold->kind == COLD_KICKED) {
		cpu->state.rip = moved + cold->target;
		if (!cold->flags_in_word)
			cpu->flags_word = cpu->way_flags;
		return;
	}
	cpu->state.rip = moved + translation->insns[cold->insn].rip;
	cpu->pending |= PENDING_SINGLE;
}
