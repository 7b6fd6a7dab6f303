/*
 * Why blocks are made: what became of the last one of the same place and mode.
 *
 * A table of short marks, one for each hash of place and mode: two places that share one are taken
 * for each other now and then. For who looks where the time goes, not for what is right.
 */
#include "code.h"

enum { HISTORY_BITS = 18, END_BITS = 2, END_MASK = 3 };
_Static_assert(1 << HISTORY_BITS == HISTORY_ENTRIES, "");

static uint64_t hash_of(const struct block *b)
{
	return (b->gpa ^ (uint64_t)soft_key_mode(b) << 48) * 0x9e3779b97f4a7c15ull;
}

/* Those of a page lie side by side, since they are made one after the other. */
static uint32_t *entry_of(struct soft_engine *engine, const struct block *b)
{
	const uint64_t page = b->gpa / PAGE_BYTES ^ (uint64_t)soft_key_mode(b) << 48;
	const uint64_t first = page * 0x9e3779b97f4a7c15ull >> (64 - HISTORY_BITS);

	return &engine->history[(first + (b->gpa & PAGE_OFFSET_MASK) / 8) % HISTORY_ENTRIES];
}

/* Never 0: what was never written is nobody's. */
static uint32_t mark_of(const struct block *b, enum block_end why)
{
	return (((uint32_t)hash_of(b) | 1u << END_BITS) & ~(uint32_t)END_MASK) | why;
}

void soft_note_made(struct soft_engine *engine, const struct block *b)
{
	uint32_t *entry = entry_of(engine, b);

	if ((*entry ^ mark_of(b, 0)) & ~(uint32_t)END_MASK)
		engine->counts.made_first++;
	else
		engine->counts.made_again[*entry & END_MASK]++;
	*entry = mark_of(b, END_NONE);
}

void soft_note_end(struct soft_engine *engine, const struct block *b, enum block_end why)
{
	uint32_t *entry = entry_of(engine, b);

	if (!((*entry ^ mark_of(b, 0)) & ~(uint32_t)END_MASK))
		*entry = mark_of(b, why);
}
