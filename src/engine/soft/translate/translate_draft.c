/*
 * A draft: a block that is made without the engine's lock, in memory of its own, so that others
 * make and link theirs meanwhile. There are two: of who makes code ahead, and of the processor that
 * makes its own beside him (code/block.c).
 *
 *   soft_begin_draft()   without          what is numbered; where in a cache line there is room
 *   soft_make_draft()    without          the code, as it lies there
 *   soft_take_draft()    under the lock   copied there, with its number
 *   soft_translate_draft_part()  likewise, as long as that is held: a cold part, for which another
 *                                         block would have to be made again
 *
 *  1. Of what is emitted nothing says where it is but its remainder of a cache line (translate.c,
 *     invariant 5), and nothing which block it is but four bytes in front of its entry and in each
 *     stub.
 *  2. The guest may write to the bytes meanwhile: they are compared once their page is protected.
 *
 * check_draft() asserts 1, as far as these bytes go. Left out: blocks that straddle.
 */
#include <assert.h>

#include "lib/check.h"
#include "translate_internal.h"

enum { NAME_AT = 2 /* in a stub */, SITES = 1 /* of a block's hot code, at most */ };
/* Numbers that are a draft's own: for them the lock is taken. */
enum { SITES_AT_ONCE = 64 * SITES };

struct draft {
	struct translation translation;
	struct block block; /* without number and place */
	uint8_t *begin;     /* of what is emitted */
	uint32_t next_site, sites; /* that are left */
	/* as the hot code has left it, for each cold part */
	unsigned cold_count;
	bool host_flags, word_flags;
	uint8_t room[CACHE_LINE_BYTES + LARGEST_PART_BYTES];
};

size_t soft_draft_bytes(void) { return sizeof(struct draft); }

/* How many bytes from `at` on the next place lies that is as `like` in a cache line. */
static size_t until(const uint8_t *at, const uint8_t *like)
{
	return ((uintptr_t)like - (uintptr_t)at) % CACHE_LINE_BYTES;
}

/* Without the lock it may be where room was. */
static uint8_t *room_in(struct soft_engine *engine)
{
	const uint32_t open = __atomic_load_n(&engine->open_region, __ATOMIC_RELAXED);

	return engine->code_write +
	       __atomic_load_n(&engine->regions[open].used, __ATOMIC_RELAXED);
}

static void take_sites(struct soft_engine *engine, struct draft *draft)
{
	soft_acquire(&engine->lock);
	draft->next_site = engine->sites;
	engine->sites += SITES_AT_ONCE;
	soft_release(&engine->lock);
	draft->sites = SITES_AT_ONCE;
}

void soft_begin_draft(struct soft_engine *engine, struct draft *draft)
{
	if (!draft->sites)
		take_sites(engine, draft);
	draft->begin = draft->room + until(draft->room, room_in(engine));
	memset(&draft->block, 0, sizeof(draft->block));
	draft->block.first_site = draft->next_site;
}

/* What needs none leaves its numbers to the next draft. */
static void count_sites(struct draft *draft, struct block *b)
{
	if (soft_floats(draft->translation.mode)) {
		draft->next_site += SITES;
		draft->sites -= SITES;
	} else { /* nobody asks for it again */
		b->first_site = 0;
	}
}

bool soft_make_draft(struct soft_engine *engine, struct draft *draft,
		     const struct code_place *place)
{
	struct translation *translation = &draft->translation;
	struct block *b = &draft->block;
	struct fault unused;
	bool has_sites;

	if (translate_begin(translation, engine, place, &unused))
		return false;
	translate_describe(translation, place, b);
	if (translation->mode & BLOCK_ALONE || b->mode & BLOCK_STRADDLES)
		return false;
	translation->is_draft = true;
	out(translation)->out = draft->begin;
	translate_emit_block(translation);
	CHECK(check_translation(translation));
	has_sites = translation->next_site - b->first_site <= SITES;
	count_sites(draft, b);
	return has_sites;
}

static uint8_t *stub_at(const struct translation *translation, const struct block *b, uint8_t *base,
			unsigned n)
{
	assert(n < translation->way_count);
	return base + b->stubs + soft_stub_offset(n);
}

static void check_draft(struct translation *translation, const struct block *b, uint8_t *base)
{
	for (unsigned n = 0; n < translation->way_count; n++) {
		const uint8_t *stub = stub_at(translation, b, base, n);

		assert(stub[0] == 0x41 && stub[1] == 0xbb); /* mov r11d, name */
	}
}

/* Which block it is. */
static void put_number(struct translation *translation, const struct block *b, uint32_t number)
{
	uint8_t *base = translation->engine->code_write + b->host_offset;

	CHECK(check_draft(translation, b, base));
	memcpy(base - sizeof(number), &number, sizeof(number));
	for (unsigned n = 0; n < translation->way_count; n++) {
		const uint32_t name = number << STUB_BITS | n;

		memcpy(stub_at(translation, b, base, n) + NAME_AT, &name, sizeof(name));
	}
}

/* As it was made, in the place of the next one. */
static struct block *put_block(struct soft_engine *engine, const struct block *made)
{
	struct block *b = soft_next_block(engine);
	const struct block next = *b;

	*b = *made;
	b->next_in_page = next.next_in_page;
	b->map_first = next.map_first;
	b->kept_first = next.kept_first;
	return b;
}

static bool is_same(const uint8_t *bytes, const uint8_t *others, unsigned count)
{
	unsigned n = 0;

	while (n < count && bytes[n] == others[n])
		n++;
	return n == count;
}

/* From here on the lock is held. */
static void leave_for_parts(struct draft *draft, ptrdiff_t moved)
{
	struct translation *translation = &draft->translation;

	translation->is_draft = false;
	translate_move_cold(translation, moved);
	draft->cold_count = translation->cold_count;
	draft->host_flags = translation->host_flags;
	draft->word_flags = translation->word_flags;
}

struct block *soft_take_draft(struct soft_engine *engine, struct draft *draft)
{
	struct translation *translation = &draft->translation;
	const struct block *made = &draft->block;
	const size_t bytes = (size_t)(out(translation)->out - draft->begin);
	uint8_t *to = room_in(engine);
	const size_t before = until(to, draft->begin);
	struct block *b;

	if (before + bytes > LARGEST_PART_BYTES ||
	    !is_same(soft_hva(engine, made->gpa), translation->bytes, made->guest_bytes))
		return NULL;
	memset(to, 0xcc, before);
	to += before;
	memcpy(to, draft->begin, bytes);
	b = put_block(engine, made);
	b->host_offset = (uint32_t)(to + (translation->base - draft->begin) - engine->code_write);
	put_number(translation, b, (uint32_t)(b - engine->blocks));
	translate_keep(translation, b, (size_t)(to + bytes - engine->code_write));
	leave_for_parts(draft, to - draft->begin);
	return b;
}

void *soft_translate_draft_part(struct draft *draft, struct block *b, unsigned stub)
{
	struct translation *translation = &draft->translation;

	translation->cold_count = draft->cold_count;
	translation->host_flags = draft->host_flags;
	translation->word_flags = draft->word_flags;
	translation->r10_end = translation->return_end = NULL;
	return translate_part(translation, b, stub);
}
