/* Which address spaces a processor keeps: see space.h. */
#include <sys/mman.h>

#include "engine/soft/code/code.h"
#include "space.h"

static bool make_space(struct mmu *mmu, unsigned number)
{
	struct address_space *space = &mmu->spaces[number];
	unsigned pairs = number ? SPACE_PAIRS : 1;

	for (unsigned n = 0; n < pairs; n++)
		if (!table_pair_create(&space->pairs[n], (uint8_t)(number * SPACE_PAIRS + n))) {
			while (n)
				table_pair_destroy(&space->pairs[--n]);
			return false;
		}
	space->number = (uint8_t)number;
	space->epoch = ++mmu->epochs;
	space->pcid = NO_PCID;
	return true;
}

struct mmu *mmu_create(struct soft_cpu *cpu)
{
	struct soft_engine *engine = cpu->engine;
	struct mmu *mmu = soft_reserve(sizeof(*mmu));

	if (!mmu)
		return NULL;
	mmu->cpu = cpu;
	mmu->frames = guest_memory_footprint_bytes(engine->memory->ram_bytes) / PAGE_BYTES;
	mmu->spaces_most = engine->budget.spaces;
	mmu->writers = soft_reserve(mmu->frames * sizeof(*mmu->writers));
	if (!mmu->writers || !table_store_create(&mmu->tables, &engine->budget) ||
	    !shadow_pool_create(&mmu->pool) || !make_space(mmu, 0) || !make_space(mmu, 1)) {
		mmu_destroy(mmu);
		return NULL;
	}
	mmu->spaces_made = 1;
	cpu->mmu = mmu;
	mmu_use_root(mmu, 0);
	return mmu;
}

void mmu_destroy(struct mmu *mmu)
{
	if (!mmu)
		return;
	for (unsigned n = 0; n <= SPACES_MOST; n++)
		for (unsigned pair = 0; pair < SPACE_PAIRS; pair++)
			table_pair_destroy(&mmu->spaces[n].pairs[pair]);
	table_store_destroy(&mmu->tables);
	shadow_pool_destroy(&mmu->pool);
	if (mmu->writers)
		munmap(mmu->writers, mmu->frames * sizeof(*mmu->writers));
	munmap(mmu, sizeof(*mmu));
}

/* A space without a guest's, or else the one that was used longest ago; never the current one. */
static struct address_space *oldest(struct mmu *mmu)
{
	struct address_space *found = NULL;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		struct address_space *space = &mmu->spaces[n];

		if (space == mmu->current)
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
	clear(mmu, longest);
	for (unsigned n = 0; n < SPACE_PAIRS; n++)
		table_give_back(&mmu->tables, &longest->pairs[n]);
	mmu->cpu->count.spaces_given_back++;
	return true;
}

static struct address_space *find_root(struct mmu *mmu, uint64_t root)
{
	if (mmu->current && mmu->current->kept && mmu->current->root == root)
		return mmu->current;
	for (unsigned n = 1; n <= mmu->spaces_made; n++)
		if (mmu->spaces[n].kept && mmu->spaces[n].root == root)
			return &mmu->spaces[n];
	return NULL;
}

/* An empty space. */
static struct address_space *new_space(struct mmu *mmu)
{
	struct address_space *space = oldest(mmu);

	if ((!space || space->kept) && mmu->spaces_made < mmu->spaces_most &&
	    make_space(mmu, mmu->spaces_made + 1))
		return &mmu->spaces[++mmu->spaces_made];
	if (!space)
		space = mmu->current;
	mmu->cpu->count.spaces_reused += space->kept;
	clear(mmu, space);
	return space;
}

static void look_up_in(struct mmu *mmu, struct address_space *space)
{
	struct soft_cpu *cpu = mmu->cpu;

	mmu->current = space;
	cpu->view_read[VIEW_USER] = space->pairs[0].read;
	cpu->view_write[VIEW_USER] = space->pairs[0].write;
	cpu->view_read[VIEW_KERNEL_AC] = space->pairs[1].read;
	cpu->view_write[VIEW_KERNEL_AC] = space->pairs[1].write;
	cpu->view_read[VIEW_KERNEL] = mmu->spaces[0].pairs[0].read;
	cpu->view_write[VIEW_KERNEL] = mmu->spaces[0].pairs[0].write;
	soft_leave_mode(cpu);
}

bool mmu_use_root(struct mmu *mmu, uint64_t root)
{
	struct address_space *space = find_root(mmu, root);
	bool known = space;

	if (!known) {
		space = new_space(mmu);
		space->root = root;
		space->kept = true;
		space->has_changes = false;
	}
	space->last_used = ++mmu->clock;
	look_up_in(mmu, space);
	return known;
}

void mmu_forget(struct mmu *mmu)
{
	for (unsigned n = 0; n <= mmu->spaces_made; n++)
		clear(mmu, &mmu->spaces[n]);
}
