/*
 * The code cache as a store of blocks: which block a host address belongs to, and which block a
 * guest address has.
 *
 * Two views of one memfd: code_write is never executable, code_run never writable. A block that is
 * taken back keeps its place, its two entries are overwritten by jumps that lead to the dispatcher,
 * and it goes with its region (region.c).
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/translate.h"

/* The block or part whose code holds host_pc. */
static struct block *part_of(const struct soft_engine *engine, uint64_t host_pc)
{
	uint64_t offset = host_pc - (uint64_t)engine->code_run;
	uint32_t low = 0;
	uint32_t high, number;
	struct block *first, *b;

	if (offset < CODE_THUNK_BYTES || offset >= engine->code_bytes)
		return NULL;
	number = soft_region_of(engine, (uint32_t)offset);
	first = &engine->blocks[number * engine->budget.region_blocks];
	high = __atomic_load_n(&engine->regions[number].blocks, __ATOMIC_ACQUIRE);
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (first[middle].host_offset <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	b = low ? &first[low - 1] : NULL;
	return b && offset < b->host_offset + b->host_bytes ? b : NULL;
}

static struct block *owner_of(const struct soft_engine *engine, struct block *part)
{
	return part && part->form == BLOCK_PART ? &engine->blocks[part->parent] : part;
}

struct block *soft_block_of(const struct soft_engine *engine, uint64_t host_pc)
{
	return owner_of(engine, part_of(engine, host_pc));
}

uint64_t soft_place_of(const struct soft_engine *engine, const struct block *b, unsigned at)
{
	return b->form == BLOCK_TRACE ? soft_trace_place(engine, b, at)
				      : (b->gpa & PAGE_OFFSET_MASK) + at;
}

/* The entries, polls and stubs are no guest instruction's. */
bool soft_guest_pc(const struct soft_cpu *cpu, uint64_t host_pc, uint64_t *ret_rip,
		   bool *ret_in_word)
{
	const struct soft_engine *engine = cpu->engine;
	const struct block *b;
	struct block *part = part_of(engine, host_pc);
	const struct pc_map *map;
	uint32_t offset, n;

	if (!part)
		return false;
	map = &engine->maps[part->map_first];
	offset = (uint32_t)(host_pc - (uint64_t)engine->code_run) - part->host_offset;
	if (offset < part->direct || offset >= part->hot_bytes)
		return false;
	for (n = 1; n < part->maps && map[n].host <= offset; n++)
		;
	b = owner_of(engine, part);
	*ret_rip = soft_page_rip(cpu, b) + soft_place_of(engine, b, map[n - 1].guest & MAP_GUEST);
	*ret_in_word = map[n - 1].guest & MAP_FLAGS_IN_WORD;
	return true;
}

/* The block that begins at this host address; NULL for the way out of the engine. */
struct block *soft_block_at(const struct soft_engine *engine, const void *entry)
{
	uint32_t index;

	if (entry == engine->leave)
		return NULL;
	memcpy(&index, (const uint8_t *)entry - 4, 4);
	return &engine->blocks[index];
}

static uint32_t bucket(uint64_t gpa, uint32_t mode)
{
	const uint64_t page = gpa / PAGE_BYTES ^ (uint64_t)mode << 48;

	return (uint32_t)((page * 0x9e3779b97f4a7c15ull >> 32) + (gpa & PAGE_OFFSET_MASK) / 8) %
	       HASH_BUCKETS;
}

void soft_hide_block(struct soft_engine *engine, struct block *b)
{
	uint32_t *link = &engine->hash[bucket(b->gpa, soft_key_mode(b))];

	while (*link && &engine->blocks[*link - 1] != b)
		link = &engine->blocks[*link - 1].next_in_hash;
	if (*link)
		*link = b->next_in_hash;
}

/*
 * The second page of an instruction that may straddle, as code_place has it. 0: it cannot, or there
 * is none in RAM, and *fault is what an instruction meets that does.
 */
static uint64_t second_page(struct soft_cpu *cpu, uint64_t gpa, struct fault *fault)
{
	const struct x86_state *state = &cpu->state;
	uint64_t linear = x86_code_bits(state) == 64
				  ? state->rip
				  : (uint32_t)(state->segment[X86_CS].base + state->rip);
	uint64_t second;
	unsigned rights;

	if ((gpa & PAGE_OFFSET_MASK) <= PAGE_BYTES - X86_INSN_MAX_BYTES ||
	    soft_walk(cpu, (linear | PAGE_OFFSET_MASK) + 1, ACCESS_EXEC, &second, &rights, fault))
		return 0;
	if (soft_hva(cpu->engine, second))
		return second / PAGE_BYTES + 1;
	soft_fail(fault, EXC_GP, true, 0);
	return 0;
}

/*
 * Without the lock, too: blocks are never reused before everybody has come through the dispatcher.
 * One that dies meanwhile is entered, and leads back here.
 */
static struct block *block_look_up(const struct soft_engine *engine,
				   const struct code_place *place)
{
	const uint32_t head = bucket(place->gpa, place->mode);

	for (uint32_t n = __atomic_load_n(&engine->hash[head], __ATOMIC_ACQUIRE);
	     n; n = __atomic_load_n(&engine->blocks[n - 1].next_in_hash, __ATOMIC_ACQUIRE)) {
		struct block *b = &engine->blocks[n - 1];

		if (b->gpa == place->gpa && soft_key_mode(b) == place->mode &&
		    (soft_floats(b->mode) || b->gva == place->rip) &&
		    (!(b->mode & BLOCK_STRADDLES) || b->second_gfn + 1ull == place->second_page))
			return b;
	}
	return NULL;
}

struct block *soft_look_up_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode)
{
	const struct code_place place = { .rip = cpu->state.rip, .gpa = gpa, .mode = mode };

	return block_look_up(cpu->engine, &place);
}

static void list_block(struct soft_engine *engine, struct block *b, uint64_t frame, uint32_t mode)
{
	uint32_t *head = &engine->hash[bucket(b->gpa, mode)];

	b->next_in_hash = *head;
	b->next_in_page = engine->page_blocks[frame];
	engine->page_blocks[frame] = (uint32_t)(b - engine->blocks) + 1;
	__atomic_store_n(head, engine->page_blocks[frame], __ATOMIC_RELEASE);
	soft_note_page(engine, b);
}

static void block_insert(struct soft_engine *engine, struct block *b, uint64_t frame, uint32_t mode)
{
	list_block(engine, b, frame, mode);
	soft_note_made(engine, b);
}

void soft_replace_block(struct soft_engine *engine, struct block *b, struct block *by)
{
	const uint64_t frame = soft_frame(engine, soft_hva(engine, b->gpa));

	soft_take_back(engine, b, frame);
	list_block(engine, by, frame, soft_key_mode(by));
	engine->counts.traces++;
}

static uint8_t *second_hva(const struct soft_engine *engine, uint64_t second_page)
{
	return soft_hva(engine, (second_page - 1) * PAGE_BYTES);
}

static void add_straddler(struct soft_engine *engine, struct block *b, uint64_t second_page)
{
	b->second_gfn = (uint32_t)(second_page - 1);
	b->next_straddler = engine->straddlers;
	engine->straddlers = (uint32_t)(b - engine->blocks) + 1;
	__atomic_fetch_or(&engine->frame_flags[soft_frame(engine, second_hva(engine, second_page))],
			  FRAME_STRADDLED, __ATOMIC_SEQ_CST);
}

/* The lock is given up meanwhile. */
static void wait_for_room(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;

	soft_release(&engine->lock);
	soft_begin_alone(cpu);
	soft_pass_all(engine);
	engine->counts.waits++;
	soft_end_alone(cpu);
	soft_acquire_code(engine);
}

/* Under the lock, of protected pages: it is found from now on. NULL: *fault. */
static struct block *make_block(struct soft_engine *engine, const struct code_place *place,
				struct fault *fault)
{
	const uint64_t frame = soft_frame(engine, soft_hva(engine, place->gpa));
	struct block *b = NULL;

	if (engine->makes_traces_at_once && soft_may_be_trace(place->mode))
		b = soft_translate_trace(engine, place);
	if (!b)
		b = soft_translate(engine, place, fault);
	if (b && b->mode & BLOCK_STRADDLES && place->second_page)
		add_straddler(engine, b, place->second_page);
	if (b)
		block_insert(engine, b, frame, place->mode);
	return b;
}

/* Somebody else may have made it meanwhile, or the page be one that is being written: NULL. */
static struct block *take_draft(struct soft_engine *engine, struct draft *draft,
				const struct code_place *place, uint64_t ways)
{
	const uint8_t *hva = soft_hva(engine, place->gpa);
	struct block *b = block_look_up(engine, place);
	uint64_t frame;

	if (b || !hva || !soft_make_room(engine))
		return b;
	frame = soft_frame(engine, hva);
	if (!soft_try_to_protect_code(engine, frame))
		return NULL;
	b = soft_take_draft(engine, draft);
	if (b) {
		block_insert(engine, b, frame, place->mode);
		soft_make_parts_of_draft(engine, draft, b, ways);
	}
	soft_end_protection(engine, frame); /* where there is none */
	return b;
}

/* Of 64-bit code, where there is none. NULL: it cannot be made so, or not now. */
static struct block *make_without_lock(struct soft_engine *engine, struct draft *draft,
				       const struct code_place *place, uint64_t ways)
{
	struct block *b;

	soft_begin_draft(engine, draft);
	if (!soft_make_draft(engine, draft, place))
		return NULL;
	soft_acquire_code(engine);
	b = take_draft(engine, draft, place, ways);
	soft_release(&engine->lock);
	return b;
}

void soft_make_block_ahead(struct soft_engine *engine, const struct code_place *place,
			   uint64_t ways)
{
	if (!block_look_up(engine, place))
		make_without_lock(engine, engine->draft, place, ways);
}

/*
 * While somebody makes code ahead, who would wait for each block of a processor's, as that for each
 * of his. NULL: not so.
 */
static struct block *make_beside(struct soft_cpu *cpu, const struct code_place *place)
{
	struct soft_engine *engine = cpu->engine;
	struct block *b;

	if (!__atomic_load_n(&engine->makes_ahead, __ATOMIC_RELAXED) || place->second_page ||
	    place->mode & BLOCK_ALONE || x86_code_bits(&cpu->state) != 64 ||
	    !soft_try_to_acquire(&engine->cpu_draft_lock))
		return NULL;
	b = make_without_lock(engine, engine->cpu_draft, place, 0);
	soft_release(&engine->cpu_draft_lock);
	cpu->translations += b != NULL;
	return b;
}

/* The block at state.rip = gpa, made now if there is none. NULL: *fault. */
struct block *soft_find_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode,
			      struct fault *fault)
{
	struct soft_engine *engine = cpu->engine;
	const struct x86_segment_state *cs = &cpu->state.segment[X86_CS];
	const uint64_t second = second_page(cpu, gpa, fault);
	const struct code_place place = { .rip = cpu->state.rip, .gpa = gpa, .second_page = second,
					  .cs_base = cs->base, .cs_limit = cs->limit,
					  .mode = mode };
	struct block *b = block_look_up(engine, &place);

	if (!b)
		b = make_beside(cpu, &place);
	if (b)
		return b;
	soft_acquire_code(engine);
	while (!(b = block_look_up(engine, &place))) {
		uint8_t *hva = soft_hva(engine, gpa); /* with the lock: overlays do not move */

		if (!hva || (second && !second_hva(engine, second))) {
			*fault = (struct fault){ .vector = EXC_GP, .has_code = true };
			break;
		}
		if (!soft_make_room(engine)) {
			wait_for_room(cpu);
			continue;
		}
		if (!soft_protect_code(cpu, soft_frame(engine, hva)))
			continue;
		/* the bytes may run into the next page; whether they do is known only afterwards */
		if (second &&
		    !soft_protect_code(cpu, soft_frame(engine, second_hva(engine, second))))
			continue;
		b = make_block(engine, &place, fault);
		cpu->translations += b != NULL;
		break;
	}
	soft_release(&engine->lock);
	return b;
}

struct block *soft_look_up_ahead(const struct soft_engine *engine, const struct code_place *place)
{
	return block_look_up(engine, place);
}

static void check_hash(const struct soft_engine *engine)
{
	for (uint32_t head = 0; head < HASH_BUCKETS; head++)
		for (uint32_t n = engine->hash[head]; n; n = engine->blocks[n - 1].next_in_hash) {
			const struct block *b = &engine->blocks[n - 1];

			assert(!b->dead && b->form != BLOCK_PART);
			assert(!engine->regions[soft_region_of(engine, b->host_offset)].closed);
			assert(bucket(b->gpa, soft_key_mode(b)) == head);
		}
}

static bool is_in_list_of(const struct soft_engine *engine, const struct block *wanted,
			  uint64_t frame)
{
	for (uint32_t n = engine->page_blocks[frame]; n; n = engine->blocks[n - 1].next_in_page)
		if (&engine->blocks[n - 1] == wanted)
			return true;
	return false;
}

static void check_frame_of(const struct soft_engine *engine, const struct block *b)
{
	uint64_t frame;

	if (b->dead || b->form == BLOCK_PART)
		return;
	frame = soft_frame(engine, soft_hva(engine, b->gpa));
	assert(engine->frame_flags[frame] & FRAME_CODE && is_in_list_of(engine, b, frame));
	if (b->mode & BLOCK_STRADDLES)
		assert(engine->frame_flags[soft_frame(engine,
						      second_hva(engine, b->second_gfn + 1ull))] &
		       FRAME_STRADDLED);
}

void check_blocks(const struct soft_engine *engine)
{
	check_hash(engine);
	for (uint32_t number = 0; number < CODE_REGIONS; number++) {
		const struct block *first = &engine->blocks[number * engine->budget.region_blocks];

		for (uint32_t n = 0; n < engine->regions[number].blocks; n++)
			check_frame_of(engine, &first[n]);
	}
}
