/*
 * Which region of the code cache goes next: one that was not used lately.
 *
 *   hand            the next one that is thought of, round and round
 *   looked at       the LOOKED_AT regions from the hand on: no jump cache knows their blocks any
 *                   more, so that each comes to the dispatcher once when it is wanted again
 *   pages, used     marks, one for each hash of a frame: where the region's blocks are from, and
 *                   of which of these one was found since the region is looked at
 *
 * One of whose pages a USED_PART or less was used goes. Of MOST_KEPT that were used more the least
 * used one goes, so that there is always one; the others stay until the hand comes again.
 *
 * What is looked at is used for as long as LOOKED_AT regions are filled before it is thought of. A
 * block that a link leads to is not seen, only who comes to its page from elsewhere: so pages are
 * counted and not blocks. Translated code pays nothing for it.
 *
 * Left out: blocks of a region that are used while the others are not. They are made anew.
 */
#include "code.h"
#include "engine/soft/mmu/mmu.h"

enum { LOOKED_AT = 8, MOST_KEPT = 4, USED_PART = 8, WORD_BITS = 64 };

static uint32_t mark_of(const struct block *b)
{
	return (uint32_t)(b->gpa / PAGE_BYTES * 0x9e3779b97f4a7c15ull >> 32) % REGION_MARKS;
}

static void mark(uint64_t *marks, uint32_t n)
{
	const uint64_t bit = 1ull << n % WORD_BITS;

	if (!(__atomic_load_n(&marks[n / WORD_BITS], __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(&marks[n / WORD_BITS], bit, __ATOMIC_RELAXED);
}

static unsigned count(const uint64_t *marks)
{
	unsigned sum = 0;

	for (unsigned n = 0; n < REGION_MARKS / WORD_BITS; n++)
		sum += (unsigned)__builtin_popcountll(marks[n]);
	return sum;
}

static struct code_region *region_of(const struct soft_engine *engine, const struct block *b)
{
	return &engine->regions[soft_region_of(engine, b->host_offset)];
}

void soft_note_page(const struct soft_engine *engine, const struct block *b)
{
	mark(region_of(engine, b)->pages, mark_of(b));
}

void soft_note_use(const struct soft_engine *engine, const struct block *b)
{
	struct code_region *region = region_of(engine, b);

	if (soft_notes_use(engine))
		soft_note_come_to(engine, b);
	if (__atomic_load_n(&region->is_looked_at, __ATOMIC_RELAXED))
		mark(region->used_pages, mark_of(b));
}

/* The one behind it that lives, and is not being filled. */
static uint32_t next_living(const struct soft_engine *engine, uint32_t number)
{
	do
		number = (number + 1) % CODE_REGIONS;
	while (number == engine->open_region || engine->regions[number].closed ||
	       soft_region_is_empty(&engine->regions[number]));
	return number;
}

static void begin_to_look(struct soft_engine *engine, uint32_t number)
{
	struct code_region *region = &engine->regions[number];

	memset(region->used_pages, 0, sizeof(region->used_pages));
	__atomic_store_n(&region->is_looked_at, true, __ATOMIC_SEQ_CST);
	soft_forget_region(engine, number);
}

void soft_look_at_regions(struct soft_engine *engine, unsigned living)
{
	uint32_t number = engine->hand;

	if (!engine->evicts_by_use || CODE_REGIONS - living > LOOKED_AT)
		return;
	for (unsigned n = 0; n < LOOKED_AT; n++) {
		number = next_living(engine, number);
		if (!engine->regions[number].is_looked_at)
			begin_to_look(engine, number);
	}
}

/* Of 256 pages so many were used; one that was not looked at is as old as can be. */
static unsigned used_of_256(const struct code_region *region)
{
	const unsigned pages = count(region->pages);

	return region->is_looked_at && pages ? count(region->used_pages) * 256 / pages : 0;
}

uint32_t soft_choose_region(struct soft_engine *engine)
{
	uint32_t least = 0;
	unsigned least_used = UINT32_MAX;

	for (unsigned kept = 0; kept < MOST_KEPT; kept++) {
		unsigned used;

		engine->hand = next_living(engine, engine->hand);
		used = used_of_256(&engine->regions[engine->hand]);
		engine->regions[engine->hand].is_looked_at = false;
		if (used < least_used) {
			least_used = used;
			least = engine->hand;
		}
		if (used <= 256 / USED_PART)
			break;
		engine->counts.regions_kept++;
	}
	engine->counts.regions_kept -= least_used > 256 / USED_PART;
	return least;
}
