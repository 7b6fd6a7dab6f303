/*
 * An address space: the TLB of one guest address space, which translated code looks up.
 * docs/engine.md has the events that change it.
 *
 *   tag       root, PCID and mode that the entries were made under
 *   tables    one pair (read, write) per view: 2^36 entries of 8 bytes each, for bits 47:12 of
 *             an address, reserved and mostly empty
 *   journal   which entries were filled, those of global pages apart: a flush costs what the fills
 *             did
 *   filters   whether a large page, or a page with code that the jump cache knows, may be cached at
 *             an address
 *   epoch     of the jump cache's entries that were found under these translations
 *
 *   entry     0: not cached; else (host address - guest address) ^ poison; the poison's low 12 bits
 *             are ones, and so are the entry's
 *
 *   1. An entry that is not 0 leads into guest RAM, and its view and index are in the journal.
 *   2. A write entry has a read entry of the same value.
 *   3. No write entry leads to a frame with translated code (FRAME_CODE).
 *   4. A frame with a write entry is FRAME_WRITTEN; FRAME_DIRTY, too, until the log is taken
 *      (dirty.c).
 *   5. Only chunks whose bit is set in open[] can be written; the others are zeros that cost
 *      nothing. Chunks, and places that were looked up in vain, are limited (budget.h): at the
 *      limit everything is forgotten and given back.
 *   6. The tag is that of the processor's control registers.
 *
 * Nobody but its processor uses a space; who is alone (exclusive.c) takes write entries out of
 * every one.
 */
#pragma once

#include "engine/soft/soft_internal.h"

/*
 * 1 to 4, while nobody else executes: 3 does not hold while a frame is being protected. Takes as
 * long as a flush.
 */
void check_space(const struct address_space *space, const struct soft_engine *e);

/* NULL: no memory. */
struct address_space *space_create(const struct soft_engine *e);
void space_destroy(struct address_space *space);
/* The page of gva is at `page` in the host; rights: RIGHT_GLOBAL, RIGHT_LARGE. */
void space_insert(struct address_space *space, unsigned view, uint64_t gva, uint8_t *page,
		  bool writable, unsigned rights);
/*
 * Before a walk for what was looked up in vain: that cost the host a page of its own page tables,
 * of which there is a limit.
 */
void space_note_miss(struct address_space *space, uint64_t gva);
/* Everything goes, entries of global pages only if `global`. */
void space_flush(struct address_space *space, bool global);
/*
 * The page of gva goes, global or not. False: it may be of a large page, whose other parts only a
 * flush of everything drops.
 */
bool space_flush_page(struct address_space *space, uint64_t gva);
/* No write entry leads to this frame any more: every write to it comes to soft_memory(). */
void space_revoke_writes(struct address_space *space, uint64_t frame);

/* Jumps found under these translations; the epoch changes, so that none of them is found again. */
void space_flush_jumps(struct address_space *space, bool global);
void space_note_jump(struct address_space *space, uint64_t linear, bool is_local_kernel);
/* Whether a jump to this page may have been noted. */
bool space_may_have_jump(const struct address_space *space, uint64_t linear);
