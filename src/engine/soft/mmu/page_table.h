/*
 * The guest's page tables from which translations are cached, and how it is noticed that one was
 * written (issue "event, reaction" in docs/engine.md).
 *
 *   holders    of a frame: processors that may have a write entry to it, a bit each, and the
 *              common spaces (common.h) that may. Creating such an entry is what is intercepted;
 *              what is then written through it is not seen
 *   FRAME_TABLE  the frame is, or was, a page table that a shadow page came through
 *   version    of a frame that is FRAME_TABLE: another one after each write that was seen, and
 *              after each time that its holders lost their entries
 *
 *    - A frame whose version is as it was, and that nobody holds, has not been written.
 *    - Who writes a frame in C does it first, then a fence, then looks at FRAME_TABLE. Who walks
 *      sets FRAME_TABLE, then takes the version, then reads the entry. One of them sees the other.
 *    - A processor's bit is taken away by that processor only, where it holds no host address of
 *      guest memory: in a flush. That of the common spaces becomes HOLDER_CLOSING, which goes when
 *      every processor has been at the top of the dispatcher since (common.c).
 *      What stands in a frame that nobody holds is what was written last, and a later writer holds
 *      it first: so one entry may be compared instead (has_same_entry() in space.c).
 *    - Frames of overlays have no version: the machine writes them and tells nobody.
 *
 * With more than HOLDERS processors the last of their bits stands for all the others, and stays.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { HOLDERS = 6, HOLDER_COMMON = 0x40, HOLDER_CLOSING = 0x80 };

/* Walks of this frame count from now on: its version. */
uint32_t page_table_note(struct soft_engine *engine, uint64_t frame);
/* Whether it has been written, or may be, since it had this version. */
bool page_table_has_changed(const struct soft_engine *engine, uint64_t frame, uint32_t version);
/* Whether nobody can write it unseen just now: then what stands in it is what a walk finds. */
bool page_table_is_watched(const struct soft_engine *engine, uint64_t frame);
/* An entry of 4 or 8 bytes. */
static inline uint64_t page_table_entry(const uint8_t *at, unsigned bytes)
{
	if (bytes == sizeof(uint32_t))
		return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_SEQ_CST);
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_SEQ_CST);
}
/* Behind a write of this frame in C. */
void page_table_written(struct soft_engine *engine, uint64_t frame);
/* Before a write entry to this frame, or a write by host address. */
void page_table_hold(struct soft_engine *engine, uint64_t frame, uint8_t holder,
		     struct mmu_counters *count);
/* Whether only this processor or the common spaces may have write entries to it. */
bool page_table_is_held_here(const struct soft_cpu *cpu, uint64_t frame);
/* The holder's write entries to it are gone. */
void page_table_let_go(struct soft_engine *engine, uint64_t frame, uint8_t holder);
