/*
 * Common address spaces: entries of users' views, and of the kernel's with AC, that all processors
 * share which execute under one root.
 *
 *   soft_cpu.mmu (space.h)              commons
 *   spaces[0]   kernel's entries        set.spaces[1..]  one per root and mode: entries, shadow
 *   spaces[1]   without paging, with                     pages, `users`
 *               watchpoints, under PAE
 *   spaces[2..] jumps; PCID; `common` ->
 *
 *   1. Everything in them is changed under `lock`, which is the last that is taken. Translated code
 *      reads entries without.
 *   2. An entry is made only if nothing of its space was flushed since the walk began that found
 *      it (`flushes`): who walks late does not bring back what somebody else has flushed. A global
 *      page that any processor flushes goes in every space.
 *   3. A processor begins to use a space when what is stale in it is gone. What it has flushed
 *      while it used another one is flushed by that.
 *   4. `users` is the number of processors whose mmu.joined it is; a space with users keeps its
 *      root.
 *   5. The bit HOLDER_COMMON of a page table becomes HOLDER_CLOSING when its write entries are
 *      taken out, since a processor may be between its lookup and its store. That one goes when
 *      every other processor has been at the top of the dispatcher; until then the table counts as
 *      changed. One batch of tables at a time.
 *
 * Left out: the kernel's own entries. Two processors may have different global pages at one address
 * (SDM Vol. 3A 4.10.2.4: each flushes for itself), and no root tells which.
 */
#pragma once

#include "page_table.h"
#include "space.h"

enum { CLOSING_MOST = 64 };

struct closing {
	unsigned count;
	uint32_t frames[CLOSING_MOST];
	uint64_t dispatches[MAX_CPUS]; /* of each processor, when they were taken out */
};

struct commons {
	struct soft_lock lock;
	bool may_close;
	struct closing closing;
	struct mmu_counters count;
	struct mmu set;
};

/* NULL: no memory. */
struct commons *common_create(struct soft_engine *engine);
void common_destroy(struct commons *commons);
/* As mmu_map_again() and mmu_forked(). */
bool common_forked(struct commons *commons);

/* Whether the processor's space may be one that it shares, in its present state. */
bool common_is_allowed(const struct soft_cpu *cpu);
/* The processor uses what `space` says from now on; NULL: a space of its own. */
void common_join(struct mmu *mmu, struct address_space *space);
/* What is stale goes in the current space, its jumps and its entries. */
void common_sync(struct mmu *mmu);
/*
 * The page of gva goes in the spaces that the processor has under this PCID, and if it is global in
 * every one. ANY_PCID: in every one, global or not.
 */
enum { ANY_PCID = 0x10000 };
void common_flush_page(struct mmu *mmu, uint64_t gva, uint32_t pcid);
/* Every entry of global pages. */
void common_flush_globals(struct soft_engine *engine);
void common_forget(struct soft_engine *engine);
/* While everybody stands still. */
void common_revoke_writes(struct soft_engine *engine, uint64_t frame);
/* In a sync: nothing in the common spaces leads to this page table for writes from now on. */
void common_close_table(struct soft_cpu *cpu, uint32_t frame);
/* As check_spaces(). */
void check_common(struct soft_engine *engine);

/* The flushes of the space that a user's access would be cached in. */
static inline uint64_t common_flushes(const struct soft_cpu *cpu)
{
	const struct address_space *joined = cpu->mmu->joined;

	return joined ? __atomic_load_n(&joined->flushes, __ATOMIC_SEQ_CST) : 0;
}

/* The bit of who will hold a frame that is written in this view. */
static inline uint8_t space_holder(const struct mmu *mmu, unsigned view)
{
	return mmu->joined && view != VIEW_KERNEL ? HOLDER_COMMON : mmu->holder;
}

/* Where a view's entries are, until space_leave(). */
static inline struct space_place space_enter(struct mmu *mmu, unsigned view)
{
	struct commons *commons = mmu->engine->commons;

	if (view == VIEW_KERNEL)
		return (struct space_place){ .set = mmu, .space = &mmu->spaces[0], .view = view };
	if (!mmu->joined)
		return (struct space_place){ .set = mmu, .space = mmu->current, .view = view };
	soft_acquire(&commons->lock);
	commons->set.current = mmu->joined;
	return (struct space_place){ .set = &commons->set, .space = mmu->joined, .view = view };
}

static inline void space_leave(struct space_place at)
{
	if (!at.set->cpu)
		soft_release(&at.set->engine->commons->lock);
}
