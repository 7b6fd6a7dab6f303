/*
 * The code cache as regions: code.h says what a region's life is.
 *
 *   who fills                                    a processor
 *   close a region: neither hash nor links       soft_pass(): its jump cache forgets what was
 *   lead there                                   closed since; passed = pass; then it looks up
 *   closed_at = ++pass, kick everybody           the hash
 *   reuse it when every passed >= closed_at
 *                                                who comes in: passed = forgotten, before it looks
 *                                                at pass
 *
 * What it found by them before it passed may be of the closed region, what it finds afterwards is
 * not. Which one is closed: eviction.c.
 *
 * An idle machine closes all but a new region, and gives the host the pages of those that everybody
 * has left: what it still needs is made anew there. When that is worth it: trim.c.
 */
#include <assert.h>
#include <sys/mman.h>

#include "code.h"

#define PASSED_OUT UINT64_MAX /* in soft_cpu.passed: not in engine_run() */

/* What is emitted for one block or part, descriptions included, has room. */
static bool has_room(const struct soft_engine *engine, const struct code_region *region)
{
	return region->used + LARGEST_PART_BYTES <= region->start + engine->budget.region_bytes &&
	       region->blocks < engine->budget.region_blocks &&
	       region->maps + MOST_MAPS <= engine->budget.region_maps &&
	       region->kept + MOST_KEPT_BYTES <= engine->budget.region_kept_bytes;
}

void soft_make_regions(struct soft_engine *engine)
{
	for (uint32_t n = 0; n < CODE_REGIONS; n++) {
		struct code_region *region = &engine->regions[n];

		region->start = CODE_THUNK_BYTES + n * engine->budget.region_bytes;
		region->used = region->start;
	}
	engine->next_region = 1;
	engine->hand = CODE_REGIONS - 1;
}

uint32_t soft_region_of(const struct soft_engine *engine, uint32_t host_offset)
{
	return (uint32_t)((host_offset - CODE_THUNK_BYTES) / engine->budget.region_bytes);
}

/* Whether nobody can be in it. */
static bool is_left(const struct soft_engine *engine, const struct code_region *region)
{
	if (soft_region_is_empty(region))
		return true;
	assert(region->closed);
	for (unsigned n = 0; n < engine->cpu_count; n++)
		if (__atomic_load_n(&engine->cpus[n]->passed, __ATOMIC_SEQ_CST) < region->closed_at)
			return false;
	return true;
}

/*
 * The list of a frame loses what is in this region. Of a frame that has changed its place since (an
 * overlay) the blocks are dead, and in no list.
 */
static void drop_page(struct soft_engine *engine, uint64_t frame, uint32_t number)
{
	const struct code_region *region = &engine->regions[number];
	uint32_t *link = &engine->page_blocks[frame];

	while (*link) {
		struct block *b = &engine->blocks[*link - 1];

		if (soft_region_of(engine, b->host_offset) == number) {
			*link = b->next_in_page;
			b->next_in_page = UNLISTED;
		} else {
			link = &b->next_in_page;
		}
	}
	soft_unlink(engine, frame, (uint32_t)region->start,
		    (uint32_t)(region->start + engine->budget.region_bytes));
	soft_end_protection(engine, frame);
}

static void drop_straddlers(struct soft_engine *engine, uint32_t number)
{
	uint32_t *link = &engine->straddlers;

	while (*link) {
		struct block *b = &engine->blocks[*link - 1];

		if (soft_region_of(engine, b->host_offset) == number)
			*link = b->next_straddler;
		else
			link = &b->next_straddler;
	}
}

/*
 * Nobody comes to one of them any more when the first page may be written without being noticed: a
 * slot is followed without a look at the kick.
 */
static void drop_blocks(struct soft_engine *engine, uint32_t number)
{
	struct block *first = &engine->blocks[number * engine->budget.region_blocks];
	struct block *end = first + engine->regions[number].blocks;

	for (struct block *b = first; b < end; b++) {
		if (b->form == BLOCK_PART) {
			soft_leave_part(engine, b);
			continue;
		}
		if (!b->dead) {
			soft_hide_block(engine, b);
			soft_note_end(engine, b, END_EVICTED);
			engine->counts.blocks_evicted++;
			__atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
			soft_lead_home(engine, b);
			soft_lead_away(engine, b);
		}
	}
	for (struct block *b = first; b < end; b++)
		if (b->form != BLOCK_PART && b->next_in_page != UNLISTED)
			drop_page(engine, soft_frame(engine, soft_hva(engine, b->gpa)), number);
	drop_straddlers(engine, number);
}

void soft_forget_region(struct soft_engine *engine, uint32_t number)
{
	const uint32_t begin = (uint32_t)engine->regions[number].start;
	const uint32_t end = (uint32_t)(begin + engine->budget.region_bytes);

	for (unsigned n = 0; n < engine->cpu_count; n++)
		soft_forget_code(engine->cpus[n], begin, end);
}

/* Nothing leads there any more but what was found before. */
static void close_region(struct soft_engine *engine, uint32_t number)
{
	struct code_region *region = &engine->regions[number];

	drop_blocks(engine, number);
	region->closed = true;
	__atomic_store_n(&region->closed_at, engine->pass + 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&engine->pass, region->closed_at, __ATOMIC_SEQ_CST);
	engine->counts.evictions++;
	for (unsigned n = 0; n < engine->cpu_count; n++)
		soft_kick(engine->cpus[n], KICK_PASS);
}

/* But for closed_at: who has not forgotten yet what led there looks at it without the lock. */
static void empty_region(struct code_region *region, bool is_reused)
{
	__atomic_store_n(&region->used, region->start, __ATOMIC_RELAXED); /* of drafts */
	__atomic_store_n(&region->blocks, 0, __ATOMIC_RELEASE);
	region->maps = region->kept = region->links = 0;
	region->times_reused += is_reused;
	region->closed = false;
	__atomic_store_n(&region->is_looked_at, false, __ATOMIC_RELAXED);
	memset(region->pages, 0, sizeof(region->pages));
	memset(region->used_pages, 0, sizeof(region->used_pages));
}

static void open_region(struct soft_engine *engine, uint32_t number)
{
	struct code_region *region = &engine->regions[number];

	empty_region(region, region->closed);
	__atomic_store_n(&engine->open_region, number, __ATOMIC_RELAXED);
}

/* The one behind the open one that is empty; or that was closed first; CODE_REGIONS: all live. */
static uint32_t find_unused(const struct soft_engine *engine, unsigned *ret_living)
{
	uint32_t found = CODE_REGIONS;

	*ret_living = 1;
	for (uint32_t n = 1; n < CODE_REGIONS; n++) {
		const uint32_t number = (engine->open_region + n) % CODE_REGIONS;
		const struct code_region *region = &engine->regions[number];
		const bool is_empty = soft_region_is_empty(region);

		*ret_living += !is_empty && !region->closed;
		if (!is_empty && !region->closed)
			continue;
		if (found == CODE_REGIONS || region->closed_at < engine->regions[found].closed_at)
			found = number;
	}
	return found;
}

/* Which one is filled next; one is closed for that when all live. */
static void prepare_next(struct soft_engine *engine)
{
	unsigned living;

	engine->next_region = find_unused(engine, &living);
	soft_look_at_regions(engine, living);
	if (engine->next_region < CODE_REGIONS)
		return;
	engine->next_region = soft_choose_region(engine);
	close_region(engine, engine->next_region);
}

bool soft_make_room(struct soft_engine *engine)
{
	if (!has_room(engine, soft_open_region(engine))) {
		if (!is_left(engine, &engine->regions[engine->next_region]))
			return false;
		open_region(engine, engine->next_region);
		prepare_next(engine);
	}
	soft_touch_ahead(engine);
	return true;
}

/* ---- giving back ---- */

/* Whole pages of it are zeros from now on. */
static void give_back(void *at, size_t bytes, int advice)
{
	const uintptr_t begin = ((uintptr_t)at + PAGE_BYTES - 1) & ~(uintptr_t)PAGE_OFFSET_MASK;
	const uintptr_t end = ((uintptr_t)at + bytes) & ~(uintptr_t)PAGE_OFFSET_MASK;

	if (begin < end)
		madvise((void *)begin, end - begin, advice);
}

/* One that everybody has left, or that was never used: large pages may have some of it. */
static void give_back_region(struct soft_engine *engine, uint32_t number)
{
	const struct soft_budget *budget = &engine->budget;
	struct code_region *region = &engine->regions[number];
	const uint32_t blocks = budget->region_blocks;
	const uint32_t maps = budget->region_maps;
	const uint32_t links = budget->region_links;
	const uint32_t kept = budget->region_kept_bytes;

	give_back(engine->code_write + region->start, budget->region_bytes, MADV_REMOVE);
	give_back(&engine->blocks[number * blocks], blocks * sizeof(*engine->blocks),
		  MADV_DONTNEED);
	give_back(&engine->maps[number * maps], maps * sizeof(*engine->maps), MADV_DONTNEED);
	give_back(&engine->links[number * links], links * sizeof(*engine->links), MADV_DONTNEED);
	give_back(&engine->kept[number * kept], kept, MADV_DONTNEED);
	empty_region(region, region->closed);
	region->touched = (struct region_touched){ .code = 0 };
}

void soft_give_back_regions(struct soft_engine *engine)
{
	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		if (engine->regions[n].closed && is_left(engine, &engine->regions[n])) {
			give_back_region(engine, n);
			engine->counts.regions_given_back++;
		}
}

bool soft_close_regions(struct soft_engine *engine)
{
	if (!soft_region_is_empty(&engine->regions[engine->next_region]))
		return false; /* somebody may still be in it: another time */
	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		if (soft_region_is_empty(&engine->regions[n]))
			give_back_region(engine, n);
	open_region(engine, engine->next_region);
	soft_touch_little(engine);
	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		if (!soft_region_is_empty(&engine->regions[n]) && !engine->regions[n].closed)
			close_region(engine, n);
	prepare_next(engine);
	/* no block is left to be found */
	give_back(engine->hash, HASH_BUCKETS * sizeof(*engine->hash), MADV_DONTNEED);
	return true;
}

struct block *soft_next_block(struct soft_engine *engine)
{
	struct code_region *region = soft_open_region(engine);
	struct block *b = &engine->blocks[engine->open_region * engine->budget.region_blocks +
					  region->blocks];

	memset(b, 0, sizeof(*b));
	b->next_in_page = UNLISTED;
	b->map_first = engine->open_region * engine->budget.region_maps + region->maps;
	b->kept_first = engine->open_region * engine->budget.region_kept_bytes + region->kept;
	return b;
}

void soft_take_block(struct soft_engine *engine, const struct block *b, size_t end,
		     unsigned kept_bytes)
{
	struct code_region *region = soft_open_region(engine);

	assert(end - region->used <= LARGEST_PART_BYTES && kept_bytes <= MOST_KEPT_BYTES);
	__atomic_store_n(&region->used, end, __ATOMIC_RELAXED);
	region->maps += b->maps;
	region->kept += kept_bytes;
	__atomic_store_n(&region->blocks, region->blocks + 1, __ATOMIC_RELEASE);
	soft_note_code(engine, b);
}

/* What was closed until then; it may have been opened again, where this processor was out. */
static void forget_closed(struct soft_cpu *cpu, uint64_t pass)
{
	const struct soft_engine *engine = cpu->engine;

	for (uint32_t n = 0; n < CODE_REGIONS && cpu->forgotten < pass; n++) {
		const struct code_region *region = &engine->regions[n];

		if (__atomic_load_n(&region->closed_at, __ATOMIC_SEQ_CST) > cpu->forgotten)
			soft_forget_code(cpu, (uint32_t)region->start,
					 (uint32_t)(region->start + engine->budget.region_bytes));
	}
	cpu->forgotten = pass;
}

void soft_pass(struct soft_cpu *cpu)
{
	uint64_t pass;

	/* else what is closed behind the look would be reused with a jump cache that leads there */
	if (soft_is_out(cpu))
		__atomic_store_n(&cpu->passed, cpu->forgotten, __ATOMIC_SEQ_CST);
	pass = __atomic_load_n(&cpu->engine->pass, __ATOMIC_SEQ_CST);
	if (cpu->passed == pass)
		return;
	forget_closed(cpu, pass);
	__atomic_store_n(&cpu->passed, pass, __ATOMIC_SEQ_CST);
}

void soft_pass_out(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->passed, PASSED_OUT, __ATOMIC_SEQ_CST);
}

bool soft_is_out(const struct soft_cpu *cpu)
{
	return __atomic_load_n(&cpu->passed, __ATOMIC_SEQ_CST) == PASSED_OUT;
}

void soft_pass_all(struct soft_engine *engine)
{
	for (unsigned n = 0; n < engine->cpu_count; n++) {
		forget_closed(engine->cpus[n], engine->pass);
		if (engine->cpus[n]->passed != PASSED_OUT)
			engine->cpus[n]->passed = engine->pass;
	}
}

size_t soft_code_used(const struct soft_engine *engine)
{
	size_t used = 0;

	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		used += engine->regions[n].used - engine->regions[n].start;
	return used;
}

static void check_order(const struct soft_engine *engine, uint32_t number)
{
	const struct code_region *region = &engine->regions[number];
	const struct block *b = &engine->blocks[number * engine->budget.region_blocks];

	assert(region->used <= region->start + engine->budget.region_bytes);
	for (uint32_t n = 0; n < region->blocks; n++) {
		size_t end = n + 1 < region->blocks ? b[n + 1].host_offset : region->used;

		assert(b[n].host_offset >= region->start &&
		       b[n].host_offset + b[n].host_bytes <= end);
	}
}

void check_regions(const struct soft_engine *engine)
{
	for (uint32_t number = 0; number < CODE_REGIONS; number++)
		if (!engine->regions[number].closed)
			check_order(engine, number);
}
