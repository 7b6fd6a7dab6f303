/*
 * The MMU room: walks of the guest's page tables, the TLB that translated code looks up, accesses
 * from C, shootdowns, the dirty log.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXEC = 4, ACCESS_SYSTEM = 8 };
enum { RIGHT_WRITE = 1, RIGHT_USER = 2, RIGHT_EXEC = 4, RIGHT_GLOBAL = 8, RIGHT_LARGE = 16 };

/* walk.c */
int soft_walk(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint64_t *ret_gpa,
	      unsigned *ret_rights, struct fault *fault);

/*
 * Reads the four entries that CR3 names under PAE paging; false, and nothing is changed: one has a
 * reserved bit set.
 */
bool soft_load_pae_roots(struct soft_cpu *cpu, uint64_t cr3);

/* tlb.c; the space itself: space.h */
void soft_use_space(struct soft_cpu *cpu, struct address_space *space);
/* CR3, or a bit of CR0, CR4 or EFER that paging depends on, is another now. */
void soft_change_space(struct soft_cpu *cpu, bool global);
/* The view of a state. */
unsigned soft_view(const struct x86_state *state);
/* Translated code uses that view from now on. */
void soft_select_view(struct soft_cpu *cpu);
/*
 * Every translation of the space goes, those of global pages only if `global`; and every jump
 * found by them.
 */
void soft_flush(struct soft_cpu *cpu, bool global);
void soft_flush_page(struct soft_cpu *cpu, uint64_t gva);
/* Invariant 5 of space.h. */
void check_tag(const struct soft_cpu *cpu);

/* access.c */
int soft_read(struct soft_cpu *cpu, uint64_t gva, void *to, size_t bytes, unsigned access,
	      struct fault *fault);
/* Whether a write of at most a page would succeed: 0, or -EFAULT with the fault that it raises. */
int soft_check_write(struct soft_cpu *cpu, uint64_t gva, size_t bytes, unsigned access,
		     struct fault *fault);
int soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes, unsigned access,
	       struct fault *fault);

/* fill.c */
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

/* shootdown.c */
void soft_stop_executing(struct soft_cpu *cpu);
void soft_start_executing(struct soft_cpu *cpu);
void soft_take_flushes(struct soft_cpu *cpu);

/* dirty.c */
static inline void soft_mark_dirty(struct soft_engine *e, const uint8_t *hva)
{
	uint8_t *flags = &e->frame_flags[soft_frame(e, hva)];

	if (!(*flags & FRAME_DIRTY))
		__atomic_fetch_or(flags, FRAME_DIRTY, __ATOMIC_SEQ_CST);
}
