/* Which address spaces a processor keeps: see space.h. */
#include <assert.h>
#include <sys/mman.h>

#include "common.h"
#include "engine/soft/code/code.h"
#include "lib/touch.h"

/* With common spaces: [1] is the processor's own, the others are where its jumps are. */
enum { OWN_SPACE = 1 };

bool mmu_make_space(struct mmu *mmu, unsigned number, unsigned pairs)
{
	struct address_space *space = &mmu->spaces[number];

	for (unsigned n = 0; n < pairs; n++)
		if (!table_pair_create(&mmu->tables, &space->pairs[n],
				       (uint8_t)(number * SPACE_PAIRS + n),
				       mmu->engine->poison)) {
			while (n)
				table_pair_destroy(&space->pairs[--n]);
			return false;
		}
	space->number = (uint8_t)number;
	space->epoch = ++mmu->epochs;
	space->pcid = NO_PCID;
	return true;
}

bool mmu_prepare(struct mmu *mmu, uint32_t chunks, uint32_t places)
{
	const struct soft_engine *engine = mmu->engine;

	mmu->frames = guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;
	mmu->writers = soft_reserve_own(mmu->frames * sizeof(*mmu->writers));
	if (!mmu->writers || !table_store_create(&mmu->tables, chunks, places) ||
	    !shadow_pool_create(&mmu->pool))
		return false;
	if (engine->goes_on) /* each of its pages is looked at before it is written */
		touch_to_write(mmu->pool.hash, SHADOW_BUCKETS * sizeof(*mmu->pool.hash));
	return true;
}

struct mmu *mmu_create(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;
	struct mmu *mmu = soft_reserve(sizeof(*mmu));

	if (!mmu)
		return NULL;
	mmu->engine = engine;
	mmu->cpu = cpu;
	mmu->count = &cpu->count;
	mmu->holder = cpu->holder;
	mmu->spaces_most = engine->commons ? SPACES_COMMON : engine->budget.spaces;
	if (!mmu_prepare(mmu, engine->budget.table_chunks, engine->budget.table_regions) ||
	    !mmu_make_space(mmu, 0, 1) || !mmu_make_space(mmu, OWN_SPACE, SPACE_PAIRS)) {
		mmu_destroy(mmu);
		return NULL;
	}
	mmu->spaces_made = 1;
	cpu->mmu = mmu;
	mmu_use_root(mmu, 0);
	return mmu;
}

void mmu_release(struct mmu *mmu)
{
	for (unsigned n = 0; n <= SPACES_COMMON; n++)
		for (unsigned pair = 0; pair < SPACE_PAIRS; pair++)
			table_pair_destroy(&mmu->spaces[n].pairs[pair]);
	table_store_destroy(&mmu->tables);
	shadow_pool_destroy(&mmu->pool);
	if (mmu->writers)
		munmap(mmu->writers, mmu->frames * sizeof(*mmu->writers));
}

void mmu_destroy(struct mmu *mmu)
{
	if (!mmu)
		return;
	common_join(mmu, NULL);
	mmu_release(mmu);
	munmap(mmu, sizeof(*mmu));
}

/* ---- in what was forked ---- */

/* Memory of pairs that lie side by side. */
struct run { uint8_t *at; unsigned pairs; };

static bool run_map(struct run *run)
{
	const bool mapped = !run->pairs || table_map_again(run->at, run->pairs);

	run->pairs = 0;
	return mapped;
}

static bool run_add(struct run *run, uint8_t *at)
{
	const bool is_below = at + TABLE_PAIR_BYTES == run->at;
	const bool is_above = run->at + run->pairs * TABLE_PAIR_BYTES == at;

	if (!(is_below || is_above) && !run_map(run))
		return false;
	if (!run->pairs || is_below)
		run->at = at;
	run->pairs++;
	return true;
}

/* It is as one that nobody has used, but that its root and its flushes were counted. */
static void forget_space(struct mmu *mmu, struct address_space *space)
{
	space->kept = space->has_changes = false;
	space->common = NULL;
	space->pcid = NO_PCID;
	space->epoch = ++mmu->epochs;
	space->shadows[0] = space->shadows[1] = 0;
	space->huge = 0;
	space->users = 0;
	for (unsigned n = 0; n < SPACE_PAIRS; n++)
		if (space->pairs[n].memory)
			table_pair_forget(&space->pairs[n]);
}

bool mmu_map_again(const struct mmu *mmu)
{
	struct run run = { 0 };
	bool mapped = true;

	for (unsigned n = 0; n <= mmu->spaces_made; n++)
		for (unsigned i = 0; i < SPACE_PAIRS; i++)
			if (mmu->spaces[n].pairs[i].memory)
				mapped &= run_add(&run, mmu->spaces[n].pairs[i].memory);
	return run_map(&run) && mapped;
}

void mmu_forked(struct mmu *mmu)
{
	for (unsigned n = 0; n <= mmu->spaces_made; n++)
		forget_space(mmu, &mmu->spaces[n]);
	table_store_forget(&mmu->tables);
	shadow_pool_forget(&mmu->pool);
	mmu->current = mmu->joined = NULL;
}

void mmu_mark_pairs(struct mmu *mmu, struct address_space *space)
{
	bool marked = true;

	for (unsigned n = 0; n < SPACE_PAIRS; n++)
		if (space->pairs[n].memory)
			marked &= table_pair_mark(&space->pairs[n], mmu->engine->poison);
	assert(marked);
}

/* ---- which one is used ---- */

/* Where there are common spaces: whether that one is for a root that may be common, or must not. */
static bool is_for(const struct mmu *mmu, const struct address_space *space, bool common)
{
	return !mmu->engine->commons || (space->number > OWN_SPACE) == common;
}

/* A space without a guest's, or else the one that was used longest ago; never the current one. */
static struct address_space *oldest(struct mmu *mmu, bool common)
{
	struct address_space *found = NULL;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		struct address_space *space = &mmu->spaces[n];

		if (space == mmu->current || !is_for(mmu, space, common))
			continue;
		if (!space->kept)
			return space;
		if (!found || space->last_used < found->last_used)
			found = space;
	}
	return found;
}

static void clear(struct mmu *mmu, struct address_space *space)
{
	space_drop(mmu, space);
	space_forget_jumps(mmu, space);
	space->kept = false;
	space->pcid = NO_PCID;
	space->common = NULL;
}

bool mmu_evict(struct mmu *mmu)
{
	struct address_space *longest = NULL;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		struct address_space *space = &mmu->spaces[n];
		bool has_something = space->shadows[0] || space->shadows[1];

		for (unsigned pair = 0; pair < SPACE_PAIRS; pair++)
			has_something |= space->pairs[pair].chunks || space->pairs[pair].places;
		if (space != mmu->current && has_something &&
		    (!longest || space->last_used < longest->last_used))
			longest = space;
	}
	if (!longest)
		return false;
	if (mmu->cpu)
		clear(mmu, longest);
	else
		space_drop(mmu, longest); /* it may be in use: its root stays */
	for (unsigned n = 0; n < SPACE_PAIRS; n++)
		table_give_back(&mmu->tables, &longest->pairs[n]);
	mmu->count->spaces_given_back++;
	return true;
}

static bool is_of_root(const struct mmu *mmu, const struct address_space *space, uint64_t root,
		       bool common)
{
	return space->kept && space->root == root && is_for(mmu, space, common);
}

static struct address_space *find_root(struct mmu *mmu, uint64_t root, bool common)
{
	if (mmu->current && is_of_root(mmu, mmu->current, root, common))
		return mmu->current;
	for (unsigned n = 1; n <= mmu->spaces_made; n++)
		if (is_of_root(mmu, &mmu->spaces[n], root, common))
			return &mmu->spaces[n];
	return NULL;
}

/* An empty space. */
static struct address_space *new_space(struct mmu *mmu, bool common)
{
	struct address_space *space = oldest(mmu, common);
	bool may_be_more = common || !mmu->engine->commons;

	if ((!space || space->kept) && may_be_more && mmu->spaces_made < mmu->spaces_most &&
	    mmu_make_space(mmu, mmu->spaces_made + 1, common ? 0 : SPACE_PAIRS))
		return &mmu->spaces[++mmu->spaces_made];
	if (!space)
		space = mmu->current;
	mmu->count->spaces_reused += space->kept;
	clear(mmu, space);
	return space;
}

static void look_up_in(struct mmu *mmu, struct address_space *space)
{
	struct soft_cpu *cpu = mmu->cpu;
	const struct table_pair *pairs = mmu->joined ? mmu->joined->pairs : space->pairs;

	mmu_mark_pairs(mmu, &mmu->spaces[0]);
	if (!mmu->joined) /* of which others use the pairs as well: common.c */
		mmu_mark_pairs(mmu, space);
	mmu->current = space;
	cpu->view_read[VIEW_USER] = pairs[0].read;
	cpu->view_write[VIEW_USER] = pairs[0].write;
	cpu->view_read[VIEW_KERNEL_AC] = pairs[1].read;
	cpu->view_write[VIEW_KERNEL_AC] = pairs[1].write;
	cpu->view_read[VIEW_KERNEL] = mmu->spaces[0].pairs[0].read;
	cpu->view_write[VIEW_KERNEL] = mmu->spaces[0].pairs[0].write;
	soft_leave_mode(cpu);
}

bool mmu_use_root(struct mmu *mmu, uint64_t root)
{
	bool common = common_is_allowed(mmu->cpu);
	struct address_space *space = find_root(mmu, root, common);
	bool known = space;

	if (!known) {
		space = new_space(mmu, common);
		space->root = root;
		space->kept = true;
		space->has_changes = false;
	}
	space->last_used = ++mmu->clock;
	common_join(mmu, common ? space : NULL);
	look_up_in(mmu, space);
	return known;
}

void mmu_forget(struct mmu *mmu)
{
	for (unsigned n = 0; n <= mmu->spaces_made; n++)
		clear(mmu, &mmu->spaces[n]);
}
