/*
 * Address spaces: the TLB of a processor. docs/engine.md has the events that change it.
 *
 *   spaces[0]     the kernel's: VIEW_KERNEL of all of them, and code of the kernel
 *   spaces[1..]   one per guest address space that is kept: VIEW_USER, VIEW_KERNEL_AC, and its
 *                 users' code. One is current; a switch to one that is kept is a pointer
 *
 *   root          of the guest's page tables that a space's entries came from
 *   pcid          under which they are cached, as far as they are stale; NO_PCID: the guest has
 *                 flushed that since, and what is stale goes before the space is used again
 *   mode          bits of CR0, CR4 and EFER that all spaces were filled under; when one changes
 *                 everything goes
 *   epoch         of the jumps that were found under the space's translations
 *   common        where its entries are, if it shares them with other processors (common.h); it
 *                 has only jumps then
 *
 *   1. An entry that is not 0 leads into guest RAM, and its page is in the `cached` of its shadow
 *      page (shadow.h). A write entry has a read entry of the same value, and is in `written`.
 *   2. No write entry leads to a frame with translated code (FRAME_CODE).
 *   3. A frame with a write entry is FRAME_WRITTEN; FRAME_DIRTY, too, until the log is taken
 *      (dirty.c); held by its processor (page_table.h); and knows its entries (writers.h).
 *   4. An entry that is not global, of a space with that root, is what a walk would find now, or
 *      its shadow page is stale.
 *   5. Entries of spaces[0] that are not global are the current space's.
 *   6. Root and mode of the current space are those of the processor's control registers.
 *
 * Nobody but its processor uses them; who is alone (exclusive.c) takes write entries out of every
 * one. The common spaces are a set like a processor's, of spaces without jumps, under a lock; what
 * is here about a processor's is about all of those that use them there.
 */
#pragma once

#include "mmu.h"
#include "shadow.h"
#include "table.h"
#include "writers.h"

/* kept by a processor for itself; common ones, and a processor's places for what it shares */
enum { SPACES_MOST = 16, SPACES_COMMON = 31 };
enum { NO_PCID = 0xffff, SPACE_PAIRS = 2 };

/* Bits of control registers that a page walk looks at. */
struct space_mode { uint32_t cr0, cr4, efer; };
static inline bool space_same_mode(const struct space_mode *a, const struct space_mode *b)
{
	return a->cr0 == b->cr0 && a->cr4 == b->cr4 && a->efer == b->efer;
}

struct address_space {
	uint64_t root;
	struct address_space *common;
	uint64_t common_life; /* of `common`, when it was that */
	uint16_t pcid;
	bool kept;         /* root and entries are of a guest address space */
	bool has_changes;  /* something may be stale, whatever table_changes says */
	uint8_t number;
	uint64_t epoch;
	uint64_t last_used;
	uint64_t synced_at; /* table_changes when nothing was stale */
	uint32_t shadows[2]; /* indices + 1: its shadow pages; [1]: those of global pages */
	uint64_t huge; /* bit GiB % 64: more than 2 MiB may go with a page there */
	struct table_pair pairs[SPACE_PAIRS]; /* spaces[0]: one */
	/* of a common one: */
	struct space_mode mode;
	uint64_t life, flushes; /* roots that it had; times that something of it was flushed */
	unsigned users;         /* processors whose current space it is */
};

struct mmu {
	struct soft_engine *engine;
	struct soft_cpu *cpu; /* NULL: the common spaces */
	struct mmu_counters *count;
	uint8_t holder; /* its bit in frame_holders[] */
	struct address_space *current, *joined; /* joined: current->common, as one of its users */
	struct space_mode mode;
	struct table_store tables;
	struct shadow_pool pool;
	struct writers *writers; /* by frame */
	uint64_t frames, epochs, clock;
	unsigned spaces_made, spaces_most; /* without the kernel's */
	struct address_space spaces[1 + SPACES_COMMON];
};

static inline struct table_pair *space_pair(struct address_space *space, unsigned view)
{
	return &space->pairs[view == VIEW_KERNEL_AC];
}

/* The space that a view's entries are in, and the set that this is of: from space_of_view(). */
struct space_place { struct mmu *set; struct address_space *space; unsigned view; };

/* ---- space.c: what is in them ---- */

/* Before a walk for what was looked up in vain. */
void space_note_miss(struct space_place at, uint64_t gva);
bool space_has(struct space_place at, uint64_t gva, bool writable);
/* Which pages of the aligned group of eight around gva are cached, a bit each. */
enum { SPACE_GROUP_PAGES = 8 };
unsigned space_cached_group(struct space_place at, uint64_t gva);
/*
 * The page of gva, of which `found` is the translation, is at `page` in the host. Not cached where
 * the host is short of memory, or the tables have changed since.
 */
void space_insert(struct space_place at, uint64_t gva, uint8_t *page, bool writable,
		  const struct page_walk *found);
/* Jumps lead to the page of linear from now on. False: they must not, the tables have changed. */
bool space_note_jump(struct mmu *mmu, uint64_t linear, bool user, const struct page_walk *found);
/* No write entry leads to this frame any more: every write to it comes to soft_memory(). */
void space_revoke_writes(struct mmu *mmu, uint64_t frame);

/* The page of gva goes, global or not; all of it, if it is a part of a large one. */
void space_drop_page(struct mmu *mmu, struct address_space *space, uint64_t gva);
/* Only if it is global. */
void space_drop_global_page(struct mmu *mmu, struct address_space *space, uint64_t gva);
/*
 * What is stale goes; or all that is not global, where tracking is off. cpu: who flushes, and holds
 * no host address of guest memory.
 */
void space_sync(struct mmu *mmu, struct address_space *space, struct soft_cpu *cpu);
/* Every entry of global pages goes. */
void space_drop_globals(struct mmu *mmu, struct address_space *space);
void space_drop_locals(struct mmu *mmu, struct address_space *space);
void space_drop(struct mmu *mmu, struct address_space *space);
/* No jump that was found under these translations is found again. */
void space_forget_jumps(struct mmu *mmu, struct address_space *space);

/*
 * 1 to 5, while nobody else executes: 2 does not hold while a frame is being protected. Takes as
 * long as a walk for every page. cpu: by whose mode is walked.
 */
void check_spaces(struct mmu *mmu, const struct soft_cpu *cpu);

/* ---- spaces.c: which there are ---- */

/* NULL: no memory. */
struct mmu *mmu_create(struct soft_cpu *cpu);
void mmu_destroy(struct mmu *mmu);
/* What a set has beside its spaces, and that; false: no memory. */
bool mmu_prepare(struct mmu *mmu, uint32_t chunks, uint32_t places);
void mmu_release(struct mmu *mmu);
/* In what was forked, before anything else is mapped: its tables' memory. False: there is none. */
bool mmu_map_again(const struct mmu *mmu);
/* Then: nothing is cached, no space is current, and none is for a guest's root. */
void mmu_forked(struct mmu *mmu);
/* Before it is used: its pairs have their poison. */
void mmu_mark_pairs(struct mmu *mmu, struct address_space *space);
/* A space with tables, or without; false: no memory. */
bool mmu_make_space(struct mmu *mmu, unsigned number, unsigned pairs);
/* The space of this root, kept or new; it is the current one now. Whether it was kept. */
bool mmu_use_root(struct mmu *mmu, uint64_t root);
/*
 * The space that was used longest ago, without the current one, loses everything, the host's memory
 * included. False: there is none.
 */
bool mmu_evict(struct mmu *mmu);
/* Everything of every space goes. */
void mmu_forget(struct mmu *mmu);
