/* Address spaces that processors share: see common.h. */
#include "common.h"

#include <assert.h>
#include <sys/mman.h>

#include "engine/soft/code/code.h"

/* ---- which there are ---- */

/* One more than there are processors, so that one without users is always found. */
static bool make_first_spaces(struct mmu *set, unsigned processors)
{
	while (set->spaces_made <= processors)
		if (!mmu_make_space(set, set->spaces_made + 1, SPACE_PAIRS))
			return false;
		else
			set->spaces_made++;
	return true;
}

struct commons *common_create(struct soft_engine *engine)
{
	const struct soft_budget *budget = &engine->budget;
	struct commons *commons = soft_reserve(sizeof(*commons));

	if (!commons)
		return NULL;
	commons->set.engine = engine;
	commons->set.count = &commons->count;
	commons->set.holder = HOLDER_COMMON;
	commons->set.spaces_most = budget->common_spaces;
	if (mmu_prepare(&commons->set, budget->common_chunks, budget->common_regions) &&
	    make_first_spaces(&commons->set, budget->processors))
		return commons;
	common_destroy(commons);
	return NULL;
}

void common_destroy(struct commons *commons)
{
	if (!commons)
		return;
	mmu_release(&commons->set);
	munmap(commons, sizeof(*commons));
}

bool common_forked(struct commons *commons)
{
	commons->closing.count = 0; /* nobody holds a page table any more */
	mmu_forked(&commons->set);
	return mmu_map_again(&commons->set);
}

static bool is_paged_by_root(const struct x86_state *state)
{
	/* under PAE four entries are registers of each processor */
	return state->cr0 & CR0_PG && (!(state->cr4 & CR4_PAE) || state->efer & EFER_LMA);
}

bool common_is_allowed(const struct soft_cpu *cpu)
{
	/* the page of a watchpoint must not be cached, and is one processor's affair */
	return cpu->engine->commons && !cpu->watchpoints && is_paged_by_root(&cpu->state);
}

static bool is_still(const struct address_space *space)
{
	return space->common && space->common->life == space->common_life;
}

static struct address_space *find_common(struct mmu *set, const struct mmu *mmu, uint64_t root)
{
	for (unsigned n = 1; n <= set->spaces_made; n++) {
		struct address_space *space = &set->spaces[n];

		if (space->kept && space->root == root &&
		    space_same_mode(&space->mode, &mmu->mode))
			return space;
	}
	return NULL;
}

static struct address_space *unused(struct mmu *set)
{
	for (unsigned n = 1; n <= set->spaces_made; n++)
		if (!set->spaces[n].kept && !set->spaces[n].users)
			return &set->spaces[n];
	return NULL;
}

/* Without users; there are more spaces than processors. */
static struct address_space *take_common(struct mmu *set)
{
	struct address_space *found = unused(set);

	if (found)
		return found;
	if (set->spaces_made < set->spaces_most &&
	    mmu_make_space(set, set->spaces_made + 1, SPACE_PAIRS))
		return &set->spaces[++set->spaces_made];
	for (unsigned n = 1; n <= set->spaces_made; n++) {
		struct address_space *space = &set->spaces[n];

		if (!space->users && (!found || space->last_used < found->last_used))
			found = space;
	}
	return found;
}

static struct address_space *make_common(struct mmu *set, const struct mmu *mmu, uint64_t root)
{
	struct address_space *space = take_common(set);

	assert(space);
	set->count->spaces_reused += space->kept;
	space_drop(set, space);
	space->life++;
	space->root = root;
	space->mode = mmu->mode;
	space->kept = true;
	space->has_changes = false;
	return space;
}

/* Nothing that was found before counts any more. */
static void note_flush(struct address_space *space)
{
	__atomic_store_n(&space->flushes, space->flushes + 1, __ATOMIC_SEQ_CST);
}

static void enter(struct commons *commons, struct mmu *mmu, struct address_space *space)
{
	struct mmu *set = &commons->set;
	struct address_space *common =
		is_still(space) ? space->common : find_common(set, mmu, space->root);

	if (!common)
		common = make_common(set, mmu, space->root);
	if (!is_still(space) || space->common != common) {
		space->common = common;
		space->common_life = common->life;
		set->current = common;
		set->count->spaces_joined += common->shadows[0] || common->shadows[1];
		note_flush(common);
		space_sync(set, common, mmu->cpu);
	}
	mmu_mark_pairs(set, common);
	common->users++;
	common->last_used = ++set->clock;
	mmu->joined = common;
}

void common_join(struct mmu *mmu, struct address_space *space)
{
	struct commons *commons = mmu->engine->commons;

	if (!commons || (space && mmu->joined && mmu->joined == space->common && is_still(space)) ||
	    (!space && !mmu->joined))
		return;
	soft_acquire(&commons->lock);
	if (mmu->joined)
		mmu->joined->users--;
	mmu->joined = NULL;
	if (space)
		enter(commons, mmu, space);
	soft_release(&commons->lock);
}

/* ---- page tables that may be written ---- */

static bool has_passed(const struct closing *closing, const struct soft_engine *engine, unsigned n)
{
	const struct soft_cpu *cpu = engine->cpus[n];

	return soft_is_out(cpu) ||
	       __atomic_load_n(&cpu->misses, __ATOMIC_SEQ_CST) != closing->dispatches[n];
}

/* cpu: at a flush, so that it holds no host address. */
static void finish_closing(struct commons *commons, const struct soft_cpu *cpu)
{
	struct closing *closing = &commons->closing;
	struct soft_engine *engine = cpu->engine;

	if (!closing->count)
		return;
	for (unsigned n = 0; n < engine->cpu_count; n++)
		if (engine->cpus[n] != cpu && !has_passed(closing, engine, n))
			return;
	for (unsigned n = 0; n < closing->count; n++)
		page_table_let_go(engine, closing->frames[n], HOLDER_CLOSING);
	closing->count = 0;
}

/* Who executes comes to the dispatcher at its next exit: the next sync finds it passed. */
static void begin_closing(struct commons *commons, const struct soft_cpu *cpu)
{
	const struct soft_engine *engine = cpu->engine;

	for (unsigned n = 0; n < engine->cpu_count; n++)
		commons->closing.dispatches[n] =
			__atomic_load_n(&engine->cpus[n]->misses, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < engine->cpu_count; n++)
		if (engine->cpus[n] != cpu && !has_passed(&commons->closing, engine, n))
			soft_kick(engine->cpus[n], KICK_PASS);
	finish_closing(commons, cpu);
}

void common_close_table(struct soft_cpu *cpu, uint32_t frame)
{
	struct commons *commons = cpu->engine->commons;
	uint8_t *holders = &cpu->engine->frame_holders[frame];

	if (!commons || !commons->may_close || commons->closing.count == CLOSING_MOST ||
	    !(__atomic_load_n(holders, __ATOMIC_SEQ_CST) & HOLDER_COMMON))
		return;
	/* who gets an entry from here on sets the one again, whatever becomes of the other */
	__atomic_fetch_or(holders, HOLDER_CLOSING, __ATOMIC_SEQ_CST);
	__atomic_fetch_and(holders, (uint8_t)~HOLDER_COMMON, __ATOMIC_SEQ_CST);
	space_revoke_writes(&commons->set, frame);
	commons->closing.frames[commons->closing.count++] = frame;
}

void common_sync(struct mmu *mmu)
{
	struct commons *commons = mmu->engine->commons;

	if (!commons) {
		space_sync(mmu, mmu->current, mmu->cpu);
		return;
	}
	soft_acquire(&commons->lock);
	finish_closing(commons, mmu->cpu);
	commons->may_close = !commons->closing.count;
	space_sync(mmu, mmu->current, mmu->cpu);
	if (mmu->joined) {
		commons->set.current = mmu->joined;
		note_flush(mmu->joined);
		space_sync(&commons->set, mmu->joined, mmu->cpu);
	}
	if (commons->may_close && commons->closing.count)
		begin_closing(commons, mmu->cpu);
	commons->may_close = false;
	soft_release(&commons->lock);
}

/* ---- flushes ---- */

/* A bit for each common space that the processor has under this PCID. */
static uint32_t spaces_of(const struct mmu *mmu, uint32_t pcid)
{
	uint32_t found = pcid == ANY_PCID ? ~0u : 0;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		const struct address_space *space = &mmu->spaces[n];

		if (space->pcid == pcid && is_still(space))
			found |= 1u << space->common->number;
	}
	return found;
}

void common_flush_page(struct mmu *mmu, uint64_t gva, uint32_t pcid)
{
	struct commons *commons = mmu->engine->commons;
	uint32_t flushed;

	if (!commons)
		return;
	soft_acquire(&commons->lock);
	flushed = spaces_of(mmu, pcid);
	for (unsigned n = 1; n <= commons->set.spaces_made; n++) {
		struct address_space *space = &commons->set.spaces[n];

		if (flushed >> n & 1)
			space_drop_page(&commons->set, space, gva);
		else
			space_drop_global_page(&commons->set, space, gva);
		note_flush(space);
	}
	soft_release(&commons->lock);
}

void common_flush_globals(struct soft_engine *engine)
{
	struct commons *commons = engine->commons;

	if (!commons)
		return;
	soft_acquire(&commons->lock);
	for (unsigned n = 1; n <= commons->set.spaces_made; n++) {
		space_drop_globals(&commons->set, &commons->set.spaces[n]);
		note_flush(&commons->set.spaces[n]);
	}
	soft_release(&commons->lock);
}

void common_forget(struct soft_engine *engine)
{
	struct commons *commons = engine->commons;

	if (!commons)
		return;
	soft_acquire(&commons->lock);
	for (unsigned n = 1; n <= commons->set.spaces_made; n++) {
		space_drop(&commons->set, &commons->set.spaces[n]);
		note_flush(&commons->set.spaces[n]);
	}
	soft_release(&commons->lock);
}

void common_revoke_writes(struct soft_engine *engine, uint64_t frame)
{
	struct commons *commons = engine->commons;

	if (!commons)
		return;
	soft_acquire(&commons->lock);
	space_revoke_writes(&commons->set, frame);
	soft_release(&commons->lock);
}

/* ---- invariants ---- */

void check_common(struct soft_engine *engine)
{
	struct commons *commons = engine->commons;
	unsigned users = 0;
	unsigned joined = 0;

	if (!commons || !engine->cpu_count)
		return;
	for (unsigned n = 1; n <= commons->set.spaces_made; n++)
		users += commons->set.spaces[n].users;
	for (unsigned n = 0; n < engine->cpu_count; n++)
		joined += engine->cpus[n]->mmu->joined != NULL;
	assert(users == joined);
	check_spaces(&commons->set, engine->cpus[0]);
}
