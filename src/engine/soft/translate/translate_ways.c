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

static struct way *add_way(struct translation *t, enum way_kind kind, const struct cold *c)
{
	struct way *way = &t->ways[t->way_count++];

	*way = (struct way){ .out = { .kind = kind, .flags_in_word = c->flags_in_word },
			     .cold = (uint16_t)(c - t->cold) };
	return way;
}

static void add_chain(struct translation *t, const struct cold *c, uint8_t *link)
{
	struct way *way = add_way(t, WAY_CHAIN, c);

	way->from = link;
	way->out.link = (uint16_t)(link - t->base);
	way->out.target = (t->cs_base + c->target) & PAGE_OFFSET_MASK;
}

/* Backwards within the page: a look at the kick that leaves the flags alone. */
static void add_poll(struct translation *t, const struct cold *c)
{
	struct emitter *e = out(t);
	struct way *kicked;
	uint8_t *calm;

	set_jump(c->from[0], e->out);
	emit_mov(e, R11, RCX);
	emit_rm(e, OP32(0x8b), RCX, CPU(kick));
	emit8(e, 0x67);
	emit8(e, 0xe3); /* jecxz */
	emit8(e, 0);
	calm = e->out;
	emit_mov(e, RCX, R11);
	kicked = add_way(t, WAY_KICKED, c);
	kicked->from = emit_jmp(e);
	kicked->out.target = (t->cs_base + c->target) & PAGE_OFFSET_MASK;
	calm[-1] = (uint8_t)(e->out - calm);
	emit_mov(e, RCX, R11);
	translate_align_rel32(t, 1);
	add_chain(t, c, emit_jmp(e));
}

static void add_ways_of(struct translation *t, const struct cold *c)
{
	bool within_page = translate_same_page(t, c->target);

	if (c->kind == COLD_POLL && within_page) {
		add_poll(t, c);
	} else if (c->kind == COLD_CHAIN) {
		assert(within_page);
		add_chain(t, c, c->from[0]);
	} else {
		add_way(t, WAY_LATE, c);
		if (c->crossing && c->kind == COLD_MEMORY)
			add_way(t, WAY_LATE, c)->crossing = true;
	}
}

static void lead_here(struct translation *t, const struct way *way)
{
	const struct cold *c = &t->cold[way->cold];

	if (way->out.kind != WAY_LATE) {
		set_jump(way->from, out(t)->out);
	} else if (way->crossing) {
		set_jump(c->crossing, out(t)->out);
	} else {
		for (unsigned n = 0; n < sizeof(c->from) / sizeof(*c->from); n++)
			if (c->from[n])
				set_jump(c->from[n], out(t)->out);
	}
}

static void emit_stub(struct translation *t, const uint8_t *first, unsigned n)
{
	uint32_t block = (uint32_t)(t->block - t->engine->blocks);
	unsigned last = n;

	while (last + 1 < t->way_count &&
	       soft_stub_offset(last + 1) == soft_stub_offset(last) + STUB_BYTES)
		last++;
	emit_prefixes(out(t), OP32(0), false, 0, NO_REG, R11);
	emit8(out(t), 0xb8 | (R11 & 7));
	emit32(out(t), block << STUB_BITS | n);
	emit8(out(t), 0xeb);
	emit8(out(t), (uint8_t)(soft_stub_offset(last) - soft_stub_offset(n)));
	if (n == last)
		emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_way_out));
	assert(out(t)->out == first + soft_stub_offset(n) + STUB_BYTES * (1 + (n == last)));
}

void translate_ways(struct translation *t)
{
	const uint8_t *first;

	t->way_count = STUBS_OF_ENTRIES;
	memset(t->ways, 0, STUBS_OF_ENTRIES * sizeof(*t->ways));
	for (unsigned n = 0; !(t->mode & BLOCK_ALONE) && n < t->cold_count; n++)
		add_ways_of(t, &t->cold[n]);
	translate_align_data(t);
	first = out(t)->out;
	t->block->stubs = (uint16_t)(first - t->base);
	for (unsigned n = 0; n < t->way_count; n++) {
		if (n >= STUBS_OF_ENTRIES)
			lead_here(t, &t->ways[n]);
		emit_stub(t, first, n);
	}
}
