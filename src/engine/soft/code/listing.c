/*
 * What is translated of one place of the guest's memory, for who looks at it (engine_list()): each
 * block that is not dead, and behind it the cold parts of it that were made since.
 *
 * Under the engine's lock, which processors want when they translate: one listing is a look at the
 * blocks of a frame, at all descriptions where the block has parts or the frame is not known, and
 * a copy.
 *
 * Left out: how often a block is executed, which nobody counts.
 */
#include <assert.h>

#include "code.h"

_Static_assert((int)LARGEST_PART_BYTES <= ENGINE_LISTED_HOST_BYTES, "it has room");
_Static_assert((int)MOST_MAPS <= ENGINE_LISTED_MAPS, "it has room");

/* What is looked for; at the n-th of them `left` is 0. */
struct search { uint64_t gpa, gva; unsigned left; };

static bool holds(uint64_t begin, unsigned bytes, uint64_t at) { return at - begin < bytes; }

/* Whether an instruction of the trace begins there, in its page. */
static bool trace_holds(const struct soft_engine *engine, const struct block *b, uint64_t place)
{
	const struct pc_map *map = &engine->maps[b->map_first];

	for (unsigned n = 0; n < b->maps; n++)
		if (soft_place_of(engine, b, map[n].guest & MAP_GUEST) == place)
			return true;
	return false;
}

static bool is_wanted(const struct soft_engine *engine, const struct search *search,
		      const struct block *b)
{
	const bool has_gpa = search->gpa != ENGINE_LISTED_ANYWHERE;
	const uint64_t at = has_gpa ? search->gpa : search->gva;
	const uint64_t begin = has_gpa ? b->gpa : b->gva;

	if (b->dead || b->form == BLOCK_PART)
		return false;
	if (b->form == BLOCK_TRACE && at / PAGE_BYTES == begin / PAGE_BYTES)
		return trace_holds(engine, b, at & PAGE_OFFSET_MASK);
	return holds(begin, b->guest_bytes, at);
}

static bool is_part_of(const struct soft_engine *engine, const struct block *part,
		       const struct block *b)
{
	const struct code_region *region =
		&engine->regions[soft_region_of(engine, b->host_offset)];

	return part->form == BLOCK_PART && &engine->blocks[part->parent] == b &&
	       part->parent_times_reused == region->times_reused;
}

/* The next of all blocks and parts, in open and full regions, from *at on. NULL: there is none. */
static const struct block *next_of_all(const struct soft_engine *engine, uint32_t *at)
{
	const uint32_t each = engine->budget.region_blocks;

	while (*at < CODE_REGIONS * each) {
		const struct code_region *region = &engine->regions[*at / each];

		if (*at % each < region->blocks && !region->closed)
			return &engine->blocks[(*at)++];
		*at += each - *at % each;
	}
	return NULL;
}

/* Itself, or one of its parts. NULL: it is farther on. */
static const struct block *find_of_block(const struct soft_engine *engine, struct search *search,
					 const struct block *b)
{
	uint32_t at = 0;

	if (!search->left--)
		return b;
	for (const struct block *part; (part = next_of_all(engine, &at));)
		if (is_part_of(engine, part, b) && !search->left--)
			return part;
	return NULL;
}

static const struct block *find_in_frame(const struct soft_engine *engine, struct search *search)
{
	const uint8_t *hva = soft_hva(engine, search->gpa);
	const struct block *found = NULL;

	for (uint32_t n = hva ? engine->page_blocks[soft_frame(engine, hva)] : 0; n && !found;
	     n = engine->blocks[n - 1].next_in_page)
		if (is_wanted(engine, search, &engine->blocks[n - 1]))
			found = find_of_block(engine, search, &engine->blocks[n - 1]);
	return found;
}

static const struct block *find_anywhere(const struct soft_engine *engine, struct search *search)
{
	const struct block *found = NULL;
	uint32_t at = 0;

	for (const struct block *b; !found && (b = next_of_all(engine, &at));)
		if (is_wanted(engine, search, b))
			found = find_of_block(engine, search, b);
	return found;
}

static uint16_t count_links(const struct soft_engine *engine, const struct block *b)
{
	uint16_t count = 0;

	for (uint32_t n = b->links; n; n = engine->links[n - 1].next)
		count++;
	return count;
}

/*
 * What code was emitted for: a block may end at an instruction that is left to C, before others
 * that were gathered with it.
 */
static void list_guest(const struct soft_engine *engine, const struct block *b,
		       struct engine_listed *ret)
{
	const struct pc_map *map = &engine->maps[b->map_first];
	const uint8_t *bytes = engine->kept + b->kept_first;
	unsigned last = 0;
	unsigned at = 0;

	for (unsigned n = 0; n < b->maps; n++)
		if ((map[n].guest & MAP_GUEST) > last)
			last = map[n].guest & MAP_GUEST;
	for (ret->insns = 0; at <= last && at < b->guest_bytes; ret->insns++) {
		struct x86_insn insn;

		if (x86_decode(bytes + at, b->guest_bytes - at, ret->code_bits, &insn))
			break;
		at += insn.length;
	}
	if (!at) /* what is none */
		at = b->guest_bytes;
	ret->guest_bytes = (uint16_t)at;
	memcpy(ret->guest, bytes, at);
}

/* part: the block itself, or one of its. */
static void list(const struct soft_engine *engine, const struct block *b, const struct block *part,
		 struct engine_listed *ret)
{
	const struct pc_map *map = &engine->maps[part->map_first];

	assert(part->maps <= MOST_MAPS && b->guest_bytes <= ENGINE_LISTED_GUEST_BYTES);
	assert(part->host_bytes <= ENGINE_LISTED_HOST_BYTES);
	ret->gva = b->gva;
	ret->gpa = b->gpa;
	ret->code_bits = 64;
	if (b->mode & (MODE_32_BIT | MODE_16_BIT))
		ret->code_bits = b->mode & MODE_32_BIT ? 32 : 16;
	ret->is_user = b->mode & MODE_USER;
	ret->is_part = part != b;
	ret->links = count_links(engine, b);
	ret->host_bytes = part->host_bytes;
	ret->hot_begin = part->direct;
	ret->hot_end = part->hot_bytes;
	ret->maps = part->maps;
	for (unsigned n = 0; n < part->maps; n++) {
		ret->map[n].host = map[n].host;
		ret->map[n].guest = map[n].guest & MAP_GUEST;
		ret->map[n].from_gva =
			(int16_t)((int)soft_place_of(engine, b, ret->map[n].guest) -
				  (int)(b->gpa & PAGE_OFFSET_MASK));
	}
	list_guest(engine, b, ret);
	memcpy(ret->host, engine->code_run + part->host_offset, part->host_bytes);
}

bool soft_engine_list(struct engine *opaque, uint64_t gpa, uint64_t gva, unsigned n,
		      struct engine_listed *ret)
{
	struct soft_engine *engine = (struct soft_engine *)opaque;
	struct search search = { .gpa = gpa, .gva = gva, .left = n };
	const struct block *found;

	soft_acquire(&engine->lock);
	found = gpa == ENGINE_LISTED_ANYWHERE ? find_anywhere(engine, &search)
					      : find_in_frame(engine, &search);
	if (found && found->form == BLOCK_PART)
		list(engine, &engine->blocks[found->parent], found, ret);
	else if (found)
		list(engine, found, found, ret);
	soft_release(&engine->lock);
	return found;
}
