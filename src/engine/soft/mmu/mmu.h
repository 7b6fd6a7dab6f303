/*
 * The MMU room: walks of the guest's page tables, the TLB that translated code looks up, accesses
 * from C, shootdowns, the dirty log.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXEC = 4, ACCESS_SYSTEM = 8 };
enum {
	RIGHT_WRITE = 1, RIGHT_USER = 2, RIGHT_EXEC = 4, RIGHT_GLOBAL = 8, RIGHT_LARGE = 16,
	/* of soft_look_up() only: A in all of the way, D at its end */
	RIGHT_ACCESSED = 32, RIGHT_DIRTY = 64
};
enum { WALK_LEVELS = 4 };

/*
 * What a walk found: where an address leads, and the entries on the way, at[levels - 1] that of the
 * root, at[level] the last. Without paging there are none.
 */
struct page_walk {
	uint64_t gpa, page_bytes;
	unsigned rights;
	unsigned upper_rights; /* without those that the last entry takes */
	unsigned levels, level, entry_bytes;
	uint8_t *at[WALK_LEVELS];
	uint64_t entry[WALK_LEVELS];
	uint64_t flushes; /* of the common space, before anything was read (common.h) */
};

/* walk.c */
/* Sets A, and D for a write. 0, or -EFAULT and the fault. */
int soft_walk_pages(struct soft_cpu *cpu, uint64_t gva, unsigned access,
			   struct page_walk *ret, struct fault *fault);
/* The same in short. */
int soft_walk(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint64_t *ret_gpa,
	      unsigned *ret_rights, struct fault *fault);

/* Under this root, as it is now: nothing is checked, nothing set. False: not present. */
bool soft_look_up(const struct soft_cpu *cpu, uint64_t cr3, uint64_t gva, struct page_walk *ret);
/*
 * In the same page table as what was found, as it is now. False: not present, not marked as
 * accessed there or on the way that was found, or that was no table of 8-byte entries.
 */
bool soft_look_beside(const struct soft_cpu *cpu, const struct page_walk *found, uint64_t gva,
		      struct page_walk *ret);
/* Whether the entries are still there; A and D may be set since, and not cleared. */
bool soft_walk_holds(const struct page_walk *walk);

/*
 * Reads the four entries that CR3 names under PAE paging; false, and nothing is changed: one has a
 * reserved bit set.
 */
bool soft_load_pae_roots(struct soft_cpu *cpu, uint64_t cr3);

/* tlb.c; the spaces themselves: space.h */
/* Entries of no space are used any more: what they depend on beside the guest's tables changed. */
void soft_forget(struct soft_cpu *cpu);
/* Of none but common ones, and whether those may be used is asked again. */
void soft_forget_own(struct soft_cpu *cpu);
/* In what was forked, on its own thread: as soft_forget_own(), of entries that are not there. */
void soft_forget_forked(struct soft_cpu *cpu);
/*
 * CR0, CR4 or EFER were written. global_pages: CR4.PGE is another now, which flushes everything.
 */
void soft_change_mode(struct soft_cpu *cpu, bool global_pages);
/* CR3 was written; keep: its bit 63. */
void soft_change_root(struct soft_cpu *cpu, bool keep);
/* The view of a state. */
unsigned soft_view(const struct x86_state *state);
/* Translated code uses that view from now on. */
void soft_select_view(struct soft_cpu *cpu);
/*
 * The guest's flushes: of everything, those of global pages only if `global`; of what was cached
 * under one PCID; of a page under the current PCID, and of global ones; of a page whatever the
 * space; of a page under one PCID. What goes is what the guest's tables may not give any more.
 */
void soft_flush(struct soft_cpu *cpu, bool global);
void soft_flush_pcid(struct soft_cpu *cpu, uint16_t pcid);
void soft_flush_page(struct soft_cpu *cpu, uint64_t gva);
void soft_flush_page_everywhere(struct soft_cpu *cpu, uint64_t gva);
void soft_flush_page_of_pcid(struct soft_cpu *cpu, uint64_t gva, uint16_t pcid);
/* No write entry of any processor leads to this frame any more; while all stand still. */
void soft_revoke_writes(struct soft_engine *engine, uint64_t frame);
/* Jumps of users and of the kernel are apart; each has an epoch. */
uint64_t soft_epoch(const struct soft_cpu *cpu, bool user);
/* A jump leads to linear from now on. False: it must not. */
bool soft_note_jump(struct soft_cpu *cpu, uint64_t linear, bool user,
		    const struct page_walk *found);
/* Every jump of every space. */
void soft_flush_jumps(struct soft_cpu *cpu);
/* Invariant 6 of space.h. */
void check_root(const struct soft_cpu *cpu);

/* access.c */
int soft_read(struct soft_cpu *cpu, uint64_t gva, void *to, size_t bytes, unsigned access,
	      struct fault *fault);
/*
 * The same in long mode of aligned words that lie in one page which is cached, and watched by
 * nobody; false: not so.
 */
bool soft_read_words(const struct soft_cpu *cpu, uint64_t gva, uint64_t *to, unsigned words);
/* Whether a write of at most a page would succeed: 0, or -EFAULT with the fault that it raises. */
int soft_check_write(struct soft_cpu *cpu, uint64_t gva, size_t bytes, unsigned access,
		     struct fault *fault);
int soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes, unsigned access,
	       struct fault *fault);
/*
 * Bytes within a page of RAM were written, without a write entry: who goes by them hears of it
 * (the dirty log, page tables, translated code).
 */
void soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes);

/* fill.c */
/*
 * Whether the frame may be written by its host address, and nobody told: who makes code of it waits
 * until that is through (soft_protect_code()). One that had code when it was filled, and has none
 * any more, may not.
 */
bool soft_is_open_for_writes(const struct soft_engine *engine, const uint8_t *hva);
/* Translates and, for RAM, caches. *ret_hva is NULL for anything else than RAM. */
int soft_fill(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint8_t **ret_hva,
	      uint64_t *ret_gpa, struct fault *fault);
/*
 * The slow path of a lookup: fill and go on, or let the access happen on the bounce buffer (pages
 * crossed, MMIO, code pages).
 */
void *soft_memory(struct soft_cpu *cpu, uint64_t gva, struct memory_site *site);
/* Behind such an access: what it left on the bounce buffer goes to memory. */
void *soft_commit(struct soft_cpu *cpu);

/* batch.c */
/* Entries for the pages around gva, as far as that changes nothing but the next miss. */
struct space_place;
void soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
		      const struct page_walk *found);
/* A fault is delivered; IRET from it is where its page is filled. */
void soft_note_fault(struct soft_cpu *cpu, const struct fault *fault);
/* Behind an IRET, if soft_cpu.fault_waits. */
void soft_fill_after_fault(struct soft_cpu *cpu);

/* space_counters.c: one line of text; its length without the NUL, cut at bytes - 1. */
size_t soft_mmu_statistics(const struct soft_cpu *cpu, char *text, size_t bytes);

/* shootdown.c */
void soft_stop_executing(struct soft_cpu *cpu);
void soft_start_executing(struct soft_cpu *cpu);
void soft_take_flushes(struct soft_cpu *cpu);
/* With flush_lock. */
void check_mailbox(const struct soft_cpu *cpu);
/* Every processor forgets everything; as engine_flush(). */
void soft_forget_everywhere(struct soft_engine *engine);

/* dirty.c */
static inline void soft_mark_dirty(struct soft_engine *engine, const uint8_t *hva)
{
	uint8_t *flags = &engine->frame_flags[soft_frame(engine, hva)];

	if (!(*flags & FRAME_DIRTY))
		__atomic_fetch_or(flags, FRAME_DIRTY, __ATOMIC_SEQ_CST);
}

static inline bool soft_notes_use(const struct soft_engine *engine)
{
	return __builtin_expect(__atomic_load_n(&engine->notes_use, __ATOMIC_RELAXED), false);
}

static inline void soft_mark_used(struct soft_engine *engine, const uint8_t *hva)
{
	uint8_t *flags = &engine->frame_flags[soft_frame(engine, hva)];

	if (!(*flags & FRAME_USED))
		__atomic_fetch_or(flags, FRAME_USED, __ATOMIC_SEQ_CST);
}
