/*
 * The code room: blocks of translated code, how they are found, entered, chained, and taken back.
 *
 *   blocks[]       in the order in which they were made, which is that of their addresses: hot
 *                  parts below cold_start, cold ones above
 *   hash           by gpa, gva and mode: where the dispatcher finds a block
 *   page_blocks    by frame: what a write to it takes back; straddlers: blocks that end in a
 *                  second page
 *   jump cache     of each processor, by gva: where translated code finds one
 *
 *   1. blocks[] is sorted by host_offset and by cold_offset, without overlaps.
 *   2. What the hash leads to is not dead, and in its bucket.
 *   3. A block that is not dead is in the list of its frame, and the frame is FRAME_CODE; of one
 *      that straddles also the second.
 *   4. An entry of a jump cache that can hit leads to a block that is not dead.
 *
 * All but the jump cache change under the engine's lock. The hash is read without it: blocks are
 * not reused before everybody has come through the dispatcher (empty_code() is done alone).
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { HASH_BUCKETS = 1 << 18 };
enum { /* with soft_mode() in block.mode */
	BLOCK_ALONE = 0x1000,
	BLOCK_STRADDLES = 0x2000,
	BLOCK_CHECKED = 0x4000 /* its instruction's operand: insn/limit.c */
};

struct block {
	uint64_t gva, gpa;
	uint64_t second_gpa;     /* of a block that straddles: where its second page begins */
	uint32_t next_straddler; /* index + 1 */
	uint32_t mode;
	uint32_t host_offset, host_bytes; /* in the code cache: the indirect entry */
	uint32_t cold_offset, cold_bytes; /* slow paths, in the upper part of the cache */
	uint32_t direct_offset;
	uint16_t guest_bytes;
	uint16_t maps, cold_maps;
	uint32_t map_first;      /* index of the first pc_map; those of the cold part follow */
	uint32_t next_in_hash, next_in_page; /* indices + 1 */
	uint32_t stub_offset;    /* where a patched entry leads */
	bool dead;
};

/* Offsets from the part's begin; host: of the instruction's. */
struct pc_map { uint32_t host; uint16_t guest; uint16_t length; };

/* In pc_map.length: at a fault here flags_word has the guest's flags, not the host. */
enum { MAP_FLAGS_IN_WORD = 0x8000 };

/* block.c */
/* The block whose hot or cold part holds host_pc. */
struct block *soft_block_of(struct soft_engine *e, uint64_t host_pc);
/* The block that begins at this host address; NULL for the way out of the engine. */
struct block *soft_block_at(struct soft_engine *e, const void *entry);
/* ret_in_word: MAP_FLAGS_IN_WORD is set there. False: not in a block. */
bool soft_guest_pc(struct soft_engine *e, uint64_t host_pc, uint64_t *ret_rip, bool *ret_in_word);
/* The block at state.rip = gpa, made now if there is none. NULL: *fault. */
struct block *soft_find_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode,
			      struct fault *fault);
/* Under the lock: nobody finds it any more. */
void soft_hide_block(struct soft_engine *e, struct block *b);

/* 1 to 3, while nobody else executes. */
void check_blocks(const struct soft_engine *e);

/* jump_cache.c */
/* 4, while nobody else executes. */
void check_jump_cache(struct soft_cpu *cpu);
/* Mode and epoch in one number. */
uint64_t soft_jump_key(const struct soft_cpu *cpu, uint32_t mode);
struct jump_entry *soft_jump_entry(struct soft_cpu *cpu, uint64_t rip);
struct page_walk;
/* To linear, of which `found` is the translation, in the block's mode. */
void soft_remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear,
			const struct page_walk *found);
void soft_forget_block(struct soft_cpu *cpu, const struct block *b);
void soft_enter_mode(struct soft_cpu *cpu, uint32_t mode);
/* No jump is found any more: the next exit comes to the dispatcher. From any thread. */
void soft_leave_mode(struct soft_cpu *cpu);

/* invalidate.c */
void soft_invalidate(struct soft_engine *e, uint64_t gpa, size_t bytes);
void soft_invalidate_locked(struct soft_engine *e, uint64_t gpa, size_t bytes);
/*
 * From now on every write to this frame comes to C. False: done, but the lock was given up
 * meanwhile, so that what was found before must be found again. Called with the lock.
 */
bool soft_protect_code(struct soft_cpu *cpu, uint64_t frame);

/* dispatch.c */
uint32_t soft_mode(struct soft_cpu *cpu);
/* The host code to go on with at state.rip: pending events first. */
void *soft_dispatch(struct soft_cpu *cpu);
/* The same after a system instruction. */
void *soft_go_on(struct soft_cpu *cpu);
/*
 * The same behind an indirect jump, call or return at from, which is where a target that is not
 * canonical faults.
 */
void *soft_indirect_miss(struct soft_cpu *cpu, uint64_t from);
/* The same behind a jump within a page, which from now on leads there itself. */
void *soft_chain(struct soft_cpu *cpu, uint64_t unused, uint8_t *link);
/* The same after delivering a fault of the instruction at state.rip. */
void *soft_raise(struct soft_cpu *cpu, const struct fault *fault);
