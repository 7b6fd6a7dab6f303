/*
 * The ways out of a block's hot code, behind it: polls of backward jumps, then the stubs (late.c
 * says what they are).
 *
 *   stub     mov r11d, name     six bytes, at a multiple of eight: one store makes it a jump
 *            jmp short          to the next of:
 *            jmp gs:[thunk]     behind each fourteen stubs, and behind the last
 */
#include <assert.h>

#include "translate_internal.h"

static struct way *add_way(struct translation *translation, enum way_kind kind,
			   const struct cold *cold)
{
	struct way *way = &translation->ways[translation->way_count++];

	assert(translation->way_count <= MAX_WAYS);
	*way = (struct way){ .out = { .kind = kind, .flags_in_word = cold->flags_in_word },
			     .cold = (uint16_t)(cold - translation->cold) };
	return way;
}

static void add_chain(struct translation *translation, const struct cold *cold, uint8_t *link)
{
	struct way *way = add_way(translation, WAY_CHAIN, cold);

	way->from = link;
	way->out.link = (uint16_t)(link - translation->base);
	way->out.target = (translation->cs_base + cold->target) & PAGE_OFFSET_MASK;
}

static void add_kicked(struct translation *translation, const struct cold *cold, uint8_t *from)
{
	struct way *way = add_way(translation, WAY_KICKED, cold);

	way->from = from;
	way->out.target = (translation->cs_base + cold->target) & PAGE_OFFSET_MASK;
}

/* A look at the kick that leaves the flags alone. */
static void look_at_kick(struct translation *translation, const struct cold *cold)
{
	struct emitter *emitter = out(translation);
	uint8_t *calm;

	emit_mov(emitter, R11, RCX);
	emit_rm(emitter, OP32(0x8b), RCX, CPU(kick));
	emit8(emitter, 0x67);
	emit8(emitter, 0xe3); /* jecxz */
	emit8(emitter, 0);
	calm = emitter->out;
	emit_mov(emitter, RCX, R11);
	add_kicked(translation, cold, emit_jmp(emitter));
	calm[-1] = (uint8_t)(emitter->out - calm);
	emit_mov(emitter, RCX, R11);
}

/* Backwards within the page. */
static void add_poll(struct translation *translation, const struct cold *cold)
{
	struct emitter *emitter = out(translation);

	set_jump(cold->from[0], emitter->out);
	if (cold->flags_in_word) {
		emit_rm(emitter, OP32(0x83), 7, CPU(kick));
		emit8(emitter, 0);
		add_kicked(translation, cold, emit_jcc(emitter, CC_NZ));
	} else {
		look_at_kick(translation, cold);
	}
	translate_align_rel32(translation, 1);
	add_chain(translation, cold, emit_jmp(emitter));
}

/* To another page, if that takes no more than a stub would. */
static bool leave_page(struct translation *translation, const struct cold *cold)
{
	const uint8_t *begin = out(translation)->out;

	translation->at = &translation->insns[cold->insn];
	if (!translate_exit_by_slot(translation, cold->target, cold->flags_in_word))
		return false;
	set_jump(cold->from[0], begin);
	return true;
}

static void add_ways_of(struct translation *translation, const struct cold *cold)
{
	bool within_page = translate_same_page(translation, cold->target);

	if (cold->kind == COLD_POLL && within_page) {
		add_poll(translation, cold);
	} else if (cold->kind == COLD_CHAIN) {
		assert(within_page);
		add_chain(translation, cold, cold->from[0]);
	} else if (cold->kind == COLD_POLL && leave_page(translation, cold)) {
		return;
	} else if (cold->kind == COLD_KICKED) {
		add_kicked(translation, cold, cold->from[0]);
	} else {
		add_way(translation, WAY_LATE, cold);
		if (cold->crossing && cold->kind == COLD_MEMORY)
			add_way(translation, WAY_LATE, cold)->crossing = true;
	}
}

static void lead_here(struct translation *translation, const struct way *way)
{
	const struct cold *cold = &translation->cold[way->cold];

	if (way->out.kind != WAY_LATE) {
		set_jump(way->from, out(translation)->out);
	} else if (way->crossing) {
		set_jump(cold->crossing, out(translation)->out);
	} else {
		for (unsigned n = 0; n < sizeof(cold->from) / sizeof(*cold->from); n++)
			if (cold->from[n])
				set_jump(cold->from[n], out(translation)->out);
	}
}

static void emit_stub(struct translation *translation, const uint8_t *first, unsigned n)
{
	uint32_t block = (uint32_t)(translation->block - translation->engine->blocks);
	unsigned last = n;

	while (last + 1 < translation->way_count &&
	       soft_stub_offset(last + 1) == soft_stub_offset(last) + STUB_BYTES)
		last++;
	emit_prefixes(out(translation), OP32(0), false, 0, NO_REG, R11);
	emit8(out(translation), 0xb8 | (R11 & 7));
	emit32(out(translation), block << STUB_BITS | n);
	emit8(out(translation), 0xeb);
	emit8(out(translation), (uint8_t)(soft_stub_offset(last) - soft_stub_offset(n)));
	if (n == last)
		emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_way_out));
	assert(out(translation)->out ==
	       first + soft_stub_offset(n) + STUB_BYTES * (1 + (n == last)));
}

/* The indirect entry of a block that begins with flags in the host's: they are in the word. */
static void emit_entry_with_flags(struct translation *translation)
{
	if (!translation->restores)
		return;
	set_jump(translation->restores, out(translation)->out);
	emit_restore_flags(out(translation));
	set_jump(emit_jmp(out(translation)), translation->base + translation->block->direct);
}

/* Where the jump to another page that ends the block misses. */
static void emit_missed_site(struct translation *translation)
{
	if (!translation->missed)
		return;
	set_jump(translation->missed, out(translation)->out);
	translate_miss_site(translation, translation->missed_site);
}

void translate_ways(struct translation *translation)
{
	const unsigned of_entries = soft_entry_stubs(translation->mode);
	const uint8_t *first;

	emit_entry_with_flags(translation);
	emit_missed_site(translation);
	translation->way_count = of_entries;
	memset(translation->ways, 0, of_entries * sizeof(*translation->ways));
	for (unsigned n = 0; !(translation->mode & BLOCK_ALONE) && n < translation->cold_count; n++)
		add_ways_of(translation, &translation->cold[n]);
	translate_align_data(translation);
	first = out(translation)->out;
	translation->block->stubs = (uint16_t)(first - translation->base);
	for (unsigned n = 0; n < translation->way_count; n++) {
		if (n >= of_entries)
			lead_here(translation, &translation->ways[n]);
		emit_stub(translation, first, n);
	}
}
