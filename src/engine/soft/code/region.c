/*
 * The code cache as regions: code.h says what a region's life is.
 *
 *   who fills                                    a processor
 *   close a region: nothing leads there          soft_pass(): passed = pass; then it looks up
 *   pass++, closed_at = pass, kick everybody     the hash, the jump cache
 *   reuse it when every passed >= closed_at
 *
 * What it found by them before it passed may be of the closed region, what it finds afterwards is
 * not. The cold are evicted by age: a block that is still wanted is made anew, for some
 * microseconds, and is young then. No list is kept of what is used, since that would cost the
 * translated code something at each entry.
 */
#include <assert.h>

#include "code.h"

#define PASSED_OUT UINT64_MAX /* in soft_cpu.passed: not in engine_run() */

/* What is emitted for one block or part, descriptions included, has room. */
static bool has_room(const struct soft_engine *e, const struct code_region *r)
{
	return r->used + LARGEST_PART_BYTES <= r->start + e->budget.region_bytes &&
	       r->blocks < e->budget.region_blocks &&
	       r->maps + MOST_MAPS <= e->budget.region_maps &&
	       r->kept + MOST_KEPT_BYTES <= e->budget.region_kept_bytes;
}

void soft_make_regions(struct soft_engine *e)
{
	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		e->regions[n].start = e->regions[n].used =
			CODE_THUNK_BYTES + n * e->budget.region_bytes;
}

uint32_t soft_region_of(const struct soft_engine *e, uint32_t host_offset)
{
	return (uint32_t)((host_offset - CODE_THUNK_BYTES) / e->budget.region_bytes);
}

static uint32_t following(uint32_t n) { return (n + 1) % CODE_REGIONS; }

static bool is_empty(const struct code_region *r) { return r->used == r->start; }

/* Whether nobody can be in it. */
static bool is_left(const struct soft_engine *e, const struct code_region *r)
{
	if (is_empty(r))
		return true;
	assert(r->closed);
	for (unsigned n = 0; n < e->cpu_count; n++)
		if (__atomic_load_n(&e->cpus[n]->passed, __ATOMIC_SEQ_CST) < r->closed_at)
			return false;
	return true;
}

/*
 * The list of a frame loses what is in this region. Of a frame that has changed its place since (an
 * overlay) the blocks are dead, and in no list.
 */
static void drop_page(struct soft_engine *e, uint64_t frame, uint32_t number)
{
	const struct code_region *r = &e->regions[number];
	uint32_t *link = &e->page_blocks[frame];

	while (*link) {
		struct block *b = &e->blocks[*link - 1];

		if (soft_region_of(e, b->host_offset) == number) {
			*link = b->next_in_page;
			b->next_in_page = UNLISTED;
		} else {
			link = &b->next_in_page;
		}
	}
	soft_unlink(e, frame, (uint32_t)r->start, (uint32_t)(r->start + e->budget.region_bytes));
	soft_end_protection(e, frame);
}

static void drop_straddlers(struct soft_engine *e, uint32_t number)
{
	uint32_t *link = &e->straddlers;

	while (*link) {
		struct block *b = &e->blocks[*link - 1];

		if (soft_region_of(e, b->host_offset) == number)
			*link = b->next_straddler;
		else
			link = &b->next_straddler;
	}
}

static void drop_blocks(struct soft_engine *e, uint32_t number)
{
	struct block *first = &e->blocks[number * e->budget.region_blocks];

	for (struct block *b = first; b < first + e->regions[number].blocks; b++) {
		if (b->form == BLOCK_PART)
			continue;
		if (!b->dead) {
			soft_hide_block(e, b);
			soft_note_end(e, b, END_EVICTED);
			__atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
		}
		if (b->next_in_page != UNLISTED)
			drop_page(e, soft_frame(e, soft_hva(e, b->gpa)), number);
	}
	drop_straddlers(e, number);
}

/* Nothing leads there any more but what was found before. */
static void close_region(struct soft_engine *e, uint32_t number)
{
	struct code_region *r = &e->regions[number];

	drop_blocks(e, number);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_forget_code(e->cpus[n], (uint32_t)r->start,
				 (uint32_t)(r->start + e->budget.region_bytes));
	r->closed = true;
	r->closed_at = __atomic_add_fetch(&e->pass, 1, __ATOMIC_SEQ_CST);
	e->counts.evictions++;
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_kick(e->cpus[n], KICK_PASS);
}

static void open_region(struct soft_engine *e, uint32_t number)
{
	struct code_region *r = &e->regions[number];

	*r = (struct code_region){ .start = r->start,
				   .used = r->start,
				   .times_reused = r->times_reused + r->closed };
	e->open_region = number;
}

bool soft_make_room(struct soft_engine *e)
{
	uint32_t next = following(e->open_region);
	uint32_t after = following(next);

	if (has_room(e, soft_open_region(e)))
		return true;
	if (!is_left(e, &e->regions[next]))
		return false;
	open_region(e, next);
	if (!is_empty(&e->regions[after]) && !e->regions[after].closed)
		close_region(e, after);
	return true;
}

struct block *soft_next_block(struct soft_engine *e)
{
	struct code_region *r = soft_open_region(e);
	struct block *b = &e->blocks[e->open_region * e->budget.region_blocks + r->blocks];

	memset(b, 0, sizeof(*b));
	b->next_in_page = UNLISTED;
	b->map_first = e->open_region * e->budget.region_maps + r->maps;
	b->kept_first = e->open_region * e->budget.region_kept_bytes + r->kept;
	return b;
}

void soft_take_block(struct soft_engine *e, const struct block *b, size_t end, unsigned kept_bytes)
{
	struct code_region *r = soft_open_region(e);

	assert(end - r->used <= LARGEST_PART_BYTES && kept_bytes <= MOST_KEPT_BYTES);
	r->used = end;
	r->maps += b->maps;
	r->kept += kept_bytes;
	__atomic_store_n(&r->blocks, r->blocks + 1, __ATOMIC_RELEASE);
}

void soft_pass(struct soft_cpu *cpu)
{
	uint64_t pass = __atomic_load_n(&cpu->engine->pass, __ATOMIC_SEQ_CST);

	if (cpu->passed != pass)
		__atomic_store_n(&cpu->passed, pass, __ATOMIC_SEQ_CST);
}

void soft_pass_out(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->passed, PASSED_OUT, __ATOMIC_SEQ_CST);
}

void soft_pass_all(struct soft_engine *e)
{
	for (unsigned n = 0; n < e->cpu_count; n++)
		if (e->cpus[n]->passed != PASSED_OUT)
			e->cpus[n]->passed = e->pass;
}

size_t soft_code_used(const struct soft_engine *e)
{
	size_t used = 0;

	for (uint32_t n = 0; n < CODE_REGIONS; n++)
		used += e->regions[n].used - e->regions[n].start;
	return used;
}

static void check_order(const struct soft_engine *e, uint32_t number)
{
	const struct code_region *r = &e->regions[number];
	const struct block *b = &e->blocks[number * e->budget.region_blocks];

	assert(r->used <= r->start + e->budget.region_bytes);
	for (uint32_t n = 0; n < r->blocks; n++) {
		size_t end = n + 1 < r->blocks ? b[n + 1].host_offset : r->used;

		assert(b[n].host_offset >= r->start && b[n].host_offset + b[n].host_bytes <= end);
	}
}

/* How long ago it was opened, in regions. */
static uint32_t age_of(const struct soft_engine *e, uint32_t number)
{
	return (e->open_region + CODE_REGIONS - number) % CODE_REGIONS;
}

/* A part is not older than its block. Where that was reused nothing leads to the part. */
static void check_part(const struct soft_engine *e, const struct block *part)
{
	uint32_t home = part->parent / e->budget.region_blocks;
	uint32_t here = soft_region_of(e, part->host_offset);

	if (e->regions[home].times_reused == part->parent_times_reused)
		assert(age_of(e, home) >= age_of(e, here));
}

void check_regions(const struct soft_engine *e)
{
	for (uint32_t number = 0; number < CODE_REGIONS; number++) {
		const struct block *b = &e->blocks[number * e->budget.region_blocks];

		if (e->regions[number].closed)
			continue;
		check_order(e, number);
		for (uint32_t n = 0; n < e->regions[number].blocks; n++)
			if (b[n].form == BLOCK_PART)
				check_part(e, &b[n]);
	}
}
