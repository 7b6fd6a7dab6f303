/*
 * Code that is made before a processor comes to it: of a guest that goes on from a file all of it
 * would be made anew by who has to execute it. While a guest is saved it is noted which blocks are
 * come to, in this order (soft_note_come_to()); where it goes on a thread that is no processor's
 * makes them, their links, and those of their cold parts that there were.
 *
 *   noted   a block that a jump was found to lead to: after engine_take_dirty() nobody knows jumps
 *           any more, so that each that is come to from elsewhere is seen once
 *   told    what was noted, and behind each what its links lead to, which nobody sees
 *
 *   - What is told is a hint, and hostile: it says which bytes are made to code, in which mode, for
 *     which address. That is looked at and made as if a processor had come there, and no processor
 *     comes to it but by its own state.
 *   - Nobody is stopped for it: what lies in a page that somebody may be writing is left out.
 *   - It is made without the lock, which processors want (translate_draft.c), and taken with it.
 *     Pages for it are asked for without, too (touch.c).
 *   - A block's cold parts are made of its draft or not at all: so who makes one for the sake of a
 *     link to it looks up what is said of its place.
 *
 * Left out: blocks that straddle, and those of 16- and 32-bit code.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/translate.h"

enum { PLACES_MOST = ENGINE_PLACES_MOST, WORD_BITS = 64 };
enum { TOUCHED_EACH = 16 }; /* so many places: pages for what is made next are asked for */

/* Indices of blocks. */
struct code_uses {
	uint32_t noted, noted_block[PLACES_MOST];
	uint32_t told, told_block[PLACES_MOST];
	uint64_t marks[]; /* a bit for each block: noted; behind them as many: told */
};

static uint32_t words_of(const struct soft_engine *engine)
{
	return (CODE_REGIONS * engine->budget.region_blocks + WORD_BITS - 1) / WORD_BITS;
}

size_t soft_code_uses_bytes(const struct soft_engine *engine)
{
	return sizeof(struct code_uses) + 2 * words_of(engine) * sizeof(uint64_t);
}

/* False: it was marked before. */
static bool mark(uint64_t *marks, uint32_t n)
{
	const uint64_t bit = 1ull << n % WORD_BITS;
	uint64_t *word = &marks[n / WORD_BITS];

	return !(__atomic_load_n(word, __ATOMIC_RELAXED) & bit) &&
	       !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit);
}

/* ---- which were come to ---- */

void soft_forget_uses(struct soft_engine *engine)
{
	memset(engine->uses, 0, soft_code_uses_bytes(engine));
}

void soft_note_come_to(const struct soft_engine *engine, const struct block *b)
{
	struct code_uses *uses = engine->uses;
	const uint32_t n = (uint32_t)(b - engine->blocks);
	uint32_t at;

	if (__atomic_load_n(&uses->noted, __ATOMIC_RELAXED) >= PLACES_MOST || !mark(uses->marks, n))
		return;
	at = __atomic_fetch_add(&uses->noted, 1, __ATOMIC_RELAXED);
	if (at < PLACES_MOST)
		__atomic_store_n(&uses->noted_block[at], n, __ATOMIC_RELAXED);
}

/* ---- what is told of them ---- */

enum { MODES_AHEAD = MODE_USER | MODE_FPU_OFF | MODE_AVX_OFF | MODE_ALIGNED };

/* One that was noted may have gone since, and another be in its place. */
static bool is_there(const struct soft_engine *engine, const struct block *b)
{
	const uint32_t index = (uint32_t)(b - engine->blocks);
	const struct code_region *region =
		&engine->regions[index / engine->budget.region_blocks];

	return !region->closed && index % engine->budget.region_blocks < region->blocks &&
	       b->form != BLOCK_PART && !b->dead && !(b->mode & ~(uint32_t)MODES_AHEAD);
}

static uint64_t ways_of(const struct soft_engine *engine, const struct block *b)
{
	uint64_t ways = 0;

	if (b->form == BLOCK_TRACE) /* what is made in its place has others */
		return 0;
	for (unsigned n = 0; (n = soft_next_way(engine, b, n)) && n < WAYS_KNOWN;)
		ways |= 1ull << n;
	return ways;
}

static void tell(struct soft_engine *engine, const struct block *b, struct engine_place *ret)
{
	struct code_uses *uses = engine->uses;
	const uint32_t n = (uint32_t)(b - engine->blocks);

	if (uses->told == PLACES_MOST || !is_there(engine, b) ||
	    !mark(uses->marks + words_of(engine), n))
		return;
	ret[uses->told] = (struct engine_place){ .gva = b->gva, .ways = ways_of(engine, b),
						 .gfn = (uint32_t)(b->gpa / PAGE_BYTES),
						 .offset = b->gpa & PAGE_OFFSET_MASK,
						 .mode = b->mode };
	uses->told_block[uses->told++] = n;
}

unsigned soft_engine_find_code(struct engine *opaque, struct engine_place *ret)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	struct code_uses *uses = engine->uses;
	const uint32_t noted = uses->noted < PLACES_MOST ? uses->noted : PLACES_MOST;
	uint32_t at = 0;

	soft_acquire(&engine->lock);
	for (uint32_t n = 0; n < noted; n++) {
		tell(engine, &engine->blocks[uses->noted_block[n]], ret);
		for (; at < uses->told; at++) {
			const struct block *b = &engine->blocks[uses->told_block[at]];
			const struct block *next;

			for (uint32_t link = b->links; (next = soft_follow(engine, &link));)
				tell(engine, next, ret);
		}
	}
	soft_release(&engine->lock);
	return uses->told;
}

/* ---- what is known of places that links lead to ---- */

enum { PLACE_BUCKETS = 2 * PLACES_MOST, PLACE_PROBES = 8 };

/* bucket: index and one of a place; 0: none. */
struct known_places {
	const uint8_t *places;
	uint16_t bucket[PLACE_BUCKETS];
};
_Static_assert(PLACES_MOST < UINT16_MAX, "an index and one");

size_t soft_known_places_bytes(void) { return sizeof(struct known_places); }

static struct engine_place place_at(const struct known_places *known, unsigned n)
{
	struct engine_place place;

	memcpy(&place, known->places + n * sizeof(place), sizeof(place));
	return place;
}

static uint32_t place_bucket(uint64_t gpa, uint32_t mode)
{
	return (uint32_t)((gpa ^ (uint64_t)mode << 48) * 0x9e3779b97f4a7c15ull >> 32);
}

static uint64_t gpa_of(const struct engine_place *place)
{
	return (uint64_t)place->gfn * PAGE_BYTES + (place->offset & PAGE_OFFSET_MASK);
}

/* Where many have the same bucket some are forgotten. */
static void know_place(struct known_places *known, unsigned n)
{
	const struct engine_place place = place_at(known, n);
	const uint32_t first = place_bucket(gpa_of(&place), place.mode);

	for (unsigned probe = 0; probe < PLACE_PROBES; probe++) {
		uint16_t *bucket = &known->bucket[(first + probe) % PLACE_BUCKETS];

		if (*bucket)
			continue;
		*bucket = (uint16_t)(n + 1);
		return;
	}
}

void soft_engine_know_places(struct engine *opaque, const uint8_t *places, size_t count)
{
	struct known_places *known = ((struct soft_engine *)opaque)->known_places;

	if (known->places)
		memset(known->bucket, 0, sizeof(known->bucket));
	known->places = count ? places : NULL;
	for (unsigned n = 0; n < count && n < PLACES_MOST; n++)
		know_place(known, n);
}

/* What they may say by now is a hint as well. */
static uint64_t known_ways(const struct known_places *known, const struct code_place *code)
{
	const uint32_t first = place_bucket(code->gpa, code->mode);

	for (unsigned probe = 0; probe < PLACE_PROBES; probe++) {
		const uint16_t n = known->bucket[(first + probe) % PLACE_BUCKETS];
		struct engine_place place;

		if (!n)
			break;
		place = place_at(known, n - 1u);
		if (gpa_of(&place) == code->gpa && place.mode == code->mode)
			return place.ways;
	}
	return 0;
}

/* ---- making it ---- */

static bool is_place(const struct engine_place *place)
{
	return place->offset < PAGE_BYTES && !(place->mode & ~(uint32_t)MODES_AHEAD) &&
	       (place->gva & PAGE_OFFSET_MASK) == place->offset && soft_canonical(place->gva);
}

/* Its page is there before anybody holds the lock. False: it is no RAM. */
static bool touch(const struct soft_engine *engine, uint64_t gpa)
{
	const uint8_t *hva = guest_ram_hva(engine->memory, gpa);

	if (hva)
		(void)*(const volatile uint8_t *)hva;
	return hva;
}

/* From this way on; the first that could lead on, if there were a block at *ret. */
static unsigned make_ways(struct soft_engine *engine, const struct code_place *code, uint64_t ways,
			  unsigned n, struct code_place *ret)
{
	struct block *b;

	soft_acquire_code(engine);
	b = soft_look_up_ahead(engine, code);
	while (b && n < WAYS_KNOWN &&
	       !(ways >> n & 1 && soft_make_way_ahead(engine, b, n, ret)))
		n++;
	soft_release(&engine->lock);
	return b ? n : WAYS_KNOWN;
}

static void make_all_ways(struct soft_engine *engine, const struct code_place *code, uint64_t ways)
{
	struct code_place target;
	unsigned n = 0;

	while (ways && (n = make_ways(engine, code, ways, n, &target)) < WAYS_KNOWN) {
		soft_make_block_ahead(engine, &target,
				      known_ways(engine->known_places, &target));
		make_ways(engine, code, 1ull << n, n, &target);
		n++;
	}
}

void soft_engine_make_code(struct engine *opaque, const struct engine_place *wanted)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	const struct engine_place place = *wanted;
	const struct code_place code = { .rip = place.gva, .mode = place.mode,
					 .gpa = (uint64_t)place.gfn * PAGE_BYTES + place.offset };

	if (!is_place(&place) || !touch(engine, code.gpa))
		return;
	__atomic_store_n(&engine->makes_ahead, true, __ATOMIC_RELAXED);
	if (engine->places_made++ % TOUCHED_EACH == 0)
		soft_touch_beside(engine);
	soft_make_block_ahead(engine, &code, place.ways);
	make_all_ways(engine, &code, place.ways);
	__atomic_store_n(&engine->makes_ahead, false, __ATOMIC_RELAXED);
}
