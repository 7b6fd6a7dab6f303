/*
 * The code room: blocks of translated code, how they are found, entered, chained, and taken back.
 *
 *   code cache   thunks, then CODE_REGIONS regions of one size, filled one after the other, and
 *                then each time one that was not used lately (eviction.c)
 *   region       blocks, and cold parts that were made later, in the order in which they were made:
 *                that of their addresses. Descriptions, pc maps, kept bytes and links of its blocks
 *                have a part of blocks[], maps[], kept[] and links[] each
 *   block        hot code, then a stub for each way into a cold part
 *   hash         by gpa and mode: where the dispatcher finds a block; those of a page lie side by
 *                side. User code of 64 bits floats:
 *                it is found by these alone, and any process at any address executes it. Rights
 *                are looked at when it is looked up. Other code is found by gva as well
 *   page_blocks  by frame: what a write to it takes back; straddlers: blocks that end in a second
 *                page
 *   links        of a block: its jumps to blocks of the same page, and what they were before
 *   jump cache   of each processor, by gva: where translated code finds one; behind it C finds
 *                those that others have displaced
 *   jump slots   of each processor: the same for a kernel's jumps to known addresses (jump_slot.c)
 *
 * A region's life (region.c): it is open, one at a time; full; closed, when the one that is to be
 * filled before it is opened: nothing leads to it any more; and reused when every processor has
 * come through the dispatcher since. So there is always one that is empty or closed, and nobody
 * waits for anybody unless a region is filled before all have passed.
 *
 *   1. What is in a region is sorted by host_offset, without overlaps, and lies in it.
 *   2. What the hash leads to is not dead, in its bucket, and in no closed region.
 *   3. A block that is not dead is in the list of its frame, and the frame is FRAME_CODE; of one
 *      that straddles also the second.
 *   4. An entry of a jump cache leads to a block, or to a region that was closed since its
 *      processor has passed; the entry of a block that is dead leads to the dispatcher, which then
 *      overwrites that of the jump cache.
 *   5. A link leads to where it led first or to a block of the same page and mode, and neither
 *      these nor the link are in a closed region. That of a dead block leads to where it led first.
 *   6. A stub that leads to a cold part leads to one of its block, in a region that is not closed.
 *   7. A block that is made again from the bytes that were kept is the same, byte for byte but for
 *      links and stubs (late.c).
 *   8. A jump cache's key is the one that was made, or matches nothing: what has matched finds RIP
 *      by the one that was made, whatever a kick does meanwhile.
 *
 * All but the jump caches change under the engine's lock, by processors and by who makes code ahead
 * of them (ahead.c). The hash is read without it: blocks are
 * not reused before everybody has come through the dispatcher.
 */
#pragma once

#include "engine/soft/soft_internal.h"

enum { HASH_BUCKETS = 1 << 19 };
enum { UNLISTED = UINT32_MAX }; /* block.next_in_page */
/* Of one block or part. */
enum { LARGEST_PART_BYTES = 60 << 10, MOST_MAPS = 512, MOST_KEPT_BYTES = 8 << 10 };
enum { /* with soft_mode() in block.mode */
	BLOCK_ALONE = 0x1000,
	BLOCK_STRADDLES = 0x2000,
	BLOCK_CHECKED = 0x4000 /* its instruction's operand: insn/limit.c */
};
enum block_form {
	BLOCK_WHOLE,
	BLOCK_BEFORE_STRADDLER, /* the instruction behind it straddles */
	BLOCK_PART,             /* no block: a cold part of one, made later */
	BLOCK_TRACE,            /* it goes on where its jumps lead: translate_trace.c */
};

/* A look-up touches one cache line. */
struct block {
	_Alignas(CACHE_LINE_BYTES) uint64_t gpa;
	union {
		uint64_t gva;
		uint64_t parent_times_reused; /* of a part: its block's region's */
	};
	uint32_t next_in_hash, next_in_page, next_straddler; /* indices + 1 */
	union {
		uint32_t second_gfn; /* of a block that straddles: its second page */
		uint32_t first_site; /* of one that floats: jump_site.c */
	};
	uint32_t host_offset; /* in the code cache: the indirect entry */
	uint32_t map_first;   /* index of the first pc_map */
	uint32_t kept_first;  /* its bytes, then a struct way_out for each stub */
	union {
		uint32_t links;  /* index + 1 of the first */
		uint32_t parent; /* of a part: index of its block */
	};
	uint16_t mode, guest_bytes;
	uint16_t host_bytes;  /* with polls and stubs */
	uint16_t stubs;       /* where they are, from host_offset on */
	uint16_t hot_bytes;   /* what guest instructions were made to */
	uint16_t maps;
	uint8_t direct;       /* the direct entry, from host_offset on */
	uint8_t insns;
	uint8_t form;         /* enum block_form */
	bool dead;
};
_Static_assert(sizeof(struct block) == CACHE_LINE_BYTES, "a look-up touches one line");

/* host: from the block's or the part's host_offset on; guest: from the first byte that is kept. */
struct pc_map { uint16_t host, guest; };

/*
 * Whether it is another one when these bytes are: of a trace whatever is in its page. (Of one that
 * straddles, what is in its first page.)
 */
static inline bool soft_block_has(const struct block *b, uint64_t gpa, uint64_t bytes)
{
	if (b->form == BLOCK_TRACE)
		return gpa / PAGE_BYTES <= b->gpa / PAGE_BYTES &&
		       gpa + bytes > (b->gpa & ~(uint64_t)PAGE_OFFSET_MASK);
	return gpa < b->gpa + b->guest_bytes && gpa + bytes > b->gpa;
}

/* In pc_map.guest: at a fault here flags_word has the guest's flags, not the host. */
enum { MAP_FLAGS_IN_WORD = 0x8000, MAP_GUEST = 0x7fff };

/* A stub's name, as it comes to C: block << STUB_BITS | stub. */
enum { STUB_BITS = 10, STUB_BYTES = 8 };
/* The first are where the entries of a dead block lead: soft_entry_stubs(). */
enum { STUB_DEAD_DIRECT, STUB_DEAD_INDIRECT, STUBS_OF_ENTRIES };

/* What C does at a stub. LATE: the cold part is made. KICKED: only the dispatcher has to look. */
enum way_kind { WAY_LATE, WAY_CHAIN, WAY_KICKED };
/* target: within the page; link: the jump that leads to the stub, from host_offset on. */
struct way_out { uint16_t link, target : 12, kind : 2, flags_in_word : 1; };

/* at: the rel32 in the code cache; home: where it led first. */
struct code_link { uint32_t at, home, next; };

/* A mark for each hash of a frame. */
enum { REGION_MARKS = 4096 };

/* Bytes from the region's begin on. */
struct region_touched { size_t code, blocks, maps, links, kept; };

struct code_region {
	size_t start, used;           /* offsets in the code cache */
	struct region_touched touched; /* so far the host has been asked for pages: touch.c */
	uint32_t blocks, maps, kept, links; /* how many are used of its part of each list */
	uint32_t times_reused;
	bool closed;
	uint64_t closed_at;           /* soft_engine.pass then */
	bool is_looked_at;            /* eviction.c */
	uint64_t pages[REGION_MARKS / 64], used_pages[REGION_MARKS / 64];
};

/* The mode that a block is found by. */
static inline uint32_t soft_key_mode(const struct block *b)
{
	return b->mode & ~(uint32_t)BLOCK_STRADDLES;
}

/*
 * Whether code of this mode is the same at every address that its frame has: user code of 64 bits.
 * soft_cpu.code_page has the page; the indirect entry takes it from RIP, which whoever leads there
 * has in r11.
 */
static inline bool soft_floats(uint32_t mode)
{
	const uint32_t fixed = MODE_32_BIT | MODE_16_BIT | BLOCK_ALONE | BLOCK_STRADDLES |
			       BLOCK_CHECKED;

	return (mode & (fixed | MODE_USER)) == MODE_USER;
}
/* The mode of what a block of this mode jumps to, as far as that stands in the jump cache. */
static inline uint32_t soft_jump_mode(uint32_t mode)
{
	return mode & ~(uint32_t)(BLOCK_ALONE | BLOCK_STRADDLES | BLOCK_CHECKED);
}

/*
 * Of a block that floats: how much of the indirect entry sets code_page. The instruction at the
 * entry of any can become a jump.
 */
enum { FLOATING_ENTRY_BYTES = 16 };
/* How many stubs are of entries: where it floats the indirect one leads to soft_dead_floating(). */
static inline unsigned soft_entry_stubs(uint32_t mode)
{
	return soft_floats(mode) ? STUB_DEAD_INDIRECT : STUBS_OF_ENTRIES;
}

/* Where the flags come in flags_word, within a page. */
static inline uint32_t soft_entry_in_word(const struct block *b)
{
	return soft_floats(b->mode) ? FLOATING_ENTRY_BYTES : 0;
}

enum { JUMP_BYTES = 5 };
/* Whether one store can put a jump there. */
static inline bool soft_holds_jump(const uint8_t *at)
{
	return (uintptr_t)at % sizeof(uint64_t) + JUMP_BYTES <= sizeof(uint64_t);
}
/* Where the block, which this processor executes, has its page. */
static inline uint64_t soft_page_rip(const struct soft_cpu *cpu, const struct block *b)
{
	return soft_floats(b->mode) ? cpu->code_page : b->gva - (b->gpa & PAGE_OFFSET_MASK);
}

/* block.c */
/* The block whose code holds host_pc. */
struct block *soft_block_of(const struct soft_engine *engine, uint64_t host_pc);
/* The block that begins at this host address; NULL for the way out of the engine. */
struct block *soft_block_at(const struct soft_engine *engine, const void *entry);
/* Where the instruction is that begins so many bytes into the block's, from its page's begin on. */
uint64_t soft_place_of(const struct soft_engine *engine, const struct block *b, unsigned at);
/* ret_in_word: MAP_FLAGS_IN_WORD is set there. False: not in a block. */
bool soft_guest_pc(const struct soft_cpu *cpu, uint64_t host_pc, uint64_t *ret_rip,
		   bool *ret_in_word);
/* The block at state.rip = gpa, made now if there is none. NULL: *fault. */
struct block *soft_find_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode,
			      struct fault *fault);
/* The block at state.rip = gpa, if there is one and it does not straddle; or NULL. */
struct block *soft_look_up_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode);
struct code_place;
/* The same under the lock, from any thread, of 64-bit code that lies in one page. */
struct block *soft_look_up_ahead(const struct soft_engine *engine, const struct code_place *place);
/*
 * Without the lock, from one thread at a time, be it no processor's: that block is made, if there
 * is none, and if it can be, with the cold parts that these of its ways out lead to.
 */
void soft_make_block_ahead(struct soft_engine *engine, const struct code_place *place,
			   uint64_t ways);
/* Under the lock: the block, which lives, goes, and the other one is found in its place. */
void soft_replace_block(struct soft_engine *engine, struct block *b, struct block *by);
/* Under the lock: nobody finds it any more. */
void soft_hide_block(struct soft_engine *engine, struct block *b);

/* 2 and 3, while nobody else executes. */
void check_blocks(const struct soft_engine *engine);

/* region.c */
void soft_make_regions(struct soft_engine *engine);
static inline bool soft_region_is_empty(const struct code_region *region)
{
	return region->used == region->start;
}
/* Of the jump caches next to nothing leads there any more. */
void soft_forget_region(struct soft_engine *engine, uint32_t number);
static inline struct code_region *soft_open_region(const struct soft_engine *engine)
{
	return &engine->regions[engine->open_region];
}
/* The number of the region that the offset lies in. */
uint32_t soft_region_of(const struct soft_engine *engine, uint32_t host_offset);
/*
 * Under the lock: until it is released the open region has room for one block or part. False: it
 * has none until everybody has come through the dispatcher.
 */
bool soft_make_room(struct soft_engine *engine);
/* Under the lock, after soft_make_room(): the next description in the open region, cleared. */
struct block *soft_next_block(struct soft_engine *engine);
/* ---- code_hold.c ---- */

/* The lock, for whoever changes code: while that is held, he waits. */
void soft_acquire_code(struct soft_engine *engine);
bool soft_code_is_held(const struct soft_engine *engine);
void soft_engine_hold_code(struct engine *engine);
void soft_engine_release_code(struct engine *engine);

/* It is made: its code ends at this offset, and its maps and kept bytes are in their lists. */
void soft_take_block(struct soft_engine *engine, const struct block *b, size_t end,
		     unsigned kept_bytes);
/* This processor holds no block, nor an address in one. At the top of the dispatcher. */
void soft_pass(struct soft_cpu *cpu);
/* It is not in engine_run(). */
void soft_pass_out(struct soft_cpu *cpu);
bool soft_is_out(const struct soft_cpu *cpu);
/* While one is alone: the same for everybody. */
void soft_pass_all(struct soft_engine *engine);
/*
 * Under the lock: a new region is all that there is, as far as anything leads to it. False: not
 * now.
 */
bool soft_close_regions(struct soft_engine *engine);
/* Under the lock: the host has the pages of closed regions that everybody has left. */
void soft_give_back_regions(struct soft_engine *engine);
/* Bytes of code in all regions. */
size_t soft_code_used(const struct soft_engine *engine);
/* 1, while nobody else executes. */
void check_regions(const struct soft_engine *engine);

/* touch.c; under the lock: the open region and its lists have pages for what is made next */
void soft_touch_ahead(struct soft_engine *engine);
/* Not under the lock, in a guest that goes on: somebody waits for pages, and nobody for him. */
void soft_touch_beside(struct soft_engine *engine);
/* It grows from here on: little at first. */
void soft_touch_little(struct soft_engine *engine);

/* eviction.c; under the lock, but for soft_note_use() */
/* A block that was made. */
void soft_note_page(const struct soft_engine *engine, const struct block *b);
/* One that a jump was found to lead to. */
void soft_note_use(const struct soft_engine *engine, const struct block *b);
/* So many regions live: those that may have to go soon are looked at from now on. */
void soft_look_at_regions(struct soft_engine *engine, unsigned living);
/* The one that goes next. */
uint32_t soft_choose_region(struct soft_engine *engine);

/* ahead.c */
size_t soft_known_places_bytes(void);
/* Of soft_engine.uses. */
size_t soft_code_uses_bytes(const struct soft_engine *engine);
/* The block is come to, while that is noted; from any processor. */
void soft_note_come_to(const struct soft_engine *engine, const struct block *b);
/* From now on. While nobody notes. */
void soft_forget_uses(struct soft_engine *engine);

/* block_history.c; under the lock: why blocks are made */
void soft_note_made(struct soft_engine *engine, const struct block *b);
void soft_note_end(struct soft_engine *engine, const struct block *b, enum block_end why);

/* code_notes.c; under the lock: a block or part that was taken; the thunks, before there is any */
void soft_note_code(struct soft_engine *engine, const struct block *b);
void soft_note_thunks(struct soft_engine *engine);
void check_code_notes(const struct code_notes *notes);

/* block_counters.c: one line of text; its length without the NUL, cut at bytes - 1. */
size_t soft_code_statistics(const struct soft_engine *engine, char *text, size_t bytes);
/* The same of one processor's way to the dispatcher. */
size_t soft_jump_statistics(const struct soft_cpu *cpu, char *text, size_t bytes);

/* block_link.c; under the lock */
/* The jump whose rel32 is at `at` in a block, and led to `home`, leads to target. */
void soft_link(struct soft_engine *engine, struct block *from, uint32_t at, uint32_t home,
	       uint32_t target);
/* Jumps from blocks of this frame to [begin, end) of the code cache lead home again. */
void soft_unlink(struct soft_engine *engine, uint64_t frame, uint32_t begin, uint32_t end);
/* Whether the rel32 at `at` in the code cache leads there. */
bool soft_leads_to(const struct soft_engine *engine, uint32_t at, uint32_t target);
/* What the link leads to, in its page, and the next one in *link; NULL: there are no more. */
const struct block *soft_follow(const struct soft_engine *engine, uint32_t *link);
/* All of a block that dies, which nobody finds by its frame any more. */
void soft_lead_home(struct soft_engine *engine, const struct block *from);
/* The block has no link any more whose jump lies there. */
void soft_drop_links(struct soft_engine *engine, struct block *from, uint32_t begin, uint32_t end);
/* 5, while nobody else executes. */
void check_links(const struct soft_engine *engine);

/* late.c */
/* The thunk of stubs: what to go on with at the stub of this name. */
void *soft_way_out(struct soft_cpu *cpu, uint64_t unused, uint64_t name);
/* Under the lock: the part goes; no stub leads there any more, and no link is there. */
void soft_leave_part(struct soft_engine *engine, const struct block *part);
enum { WAYS_KNOWN = 64 }; /* of a block's ways out, by a bit each */
/*
 * The number of the block's first way out behind `n` that leads to a cold part or to another block;
 * 0: none does.
 */
unsigned soft_next_way(const struct soft_engine *engine, const struct block *b, unsigned n);
/*
 * Under the lock, from any thread: the block's way out of this number, if it is one to another
 * block, leads there from now on, if it can. True: it could, if there were a block at *ret.
 */
bool soft_make_way_ahead(struct soft_engine *engine, struct block *b, unsigned n,
			 struct code_place *ret);
struct draft;
/* Under the lock: of a block that was taken just now those that are cold parts. */
void soft_make_parts_of_draft(struct soft_engine *engine, struct draft *draft, struct block *b,
			      uint64_t ways);
/* 6, while nobody else executes. */
void check_stubs(const struct soft_engine *engine);
/* Where stub n is, from the first. */
static inline uint32_t soft_stub_offset(unsigned n)
{
	enum { STUBS_TO_A_JUMP = 14 }; /* they reach it by a short one */

	return STUB_BYTES * (n + n / STUBS_TO_A_JUMP);
}

/* jump_cache.c */
/* 4, while nobody else executes. */
void check_jump_cache(const struct soft_cpu *cpu);
/* Mode and epoch in one number. */
uint64_t soft_jump_key(const struct soft_cpu *cpu, uint32_t mode);
struct jump_entry *soft_jump_entry(struct soft_cpu *cpu, uint64_t rip);
struct page_walk;
/*
 * The page of code at linear in this mode, if a jump has come there since jumps were flushed last.
 * False: it is to be walked for.
 */
bool soft_recall_page(struct soft_cpu *cpu, uint64_t linear, uint32_t mode, uint64_t *ret_gpa);
/*
 * To linear, of which `found` is the translation, in the block's mode; NULL: the page was recalled.
 */
void soft_remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear,
			const struct page_walk *found);
/*
 * The jump of this sum, if another has displaced it, is in its place j again: where it leads. NULL:
 * not so.
 */
void *soft_recover_jump(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t sum);
/* The jump to state.rip of 64-bit code, whose page and block are known: as soft_recover_jump(). */
void *soft_find_known_jump(struct soft_cpu *cpu, struct jump_entry *entry, uint64_t key,
			   uint32_t mode);
/* No entry leads to [begin, end) of the code cache any more: for its processor, or but for some. */
void soft_forget_code(struct soft_cpu *cpu, uint32_t begin, uint32_t end);
void soft_enter_mode(struct soft_cpu *cpu, uint32_t mode);
/* No jump is found any more: the next exit comes to the dispatcher. From any thread. */
void soft_leave_mode(struct soft_cpu *cpu);

/* jump_slot.c */
/*
 * Under the lock: the number of what leads to rip in this mode, where the flags are in the word or
 * the host's; NO_JUMP_SLOT: there are no more.
 */
uint32_t soft_jump_slot(struct soft_engine *engine, uint64_t rip, uint32_t mode, bool in_word);
/* The same without the lock; NO_JUMP_SLOT: there may be none yet. */
uint32_t soft_jump_slot_known(const struct soft_engine *engine, uint64_t rip, uint32_t mode,
			      bool in_word);
/* Of a processor that is being made. */
void soft_make_slots(struct soft_cpu *cpu);
/* None leads anywhere, now that the kernel's jumps are flushed. */
void soft_empty_slots(struct soft_cpu *cpu);
/* The same of those that lead to host addresses from first on; from any thread but for some. */
void soft_empty_slots_to(struct soft_cpu *cpu, uint64_t first, uint64_t bytes);
/* The same of this address. */
void soft_empty_slots_at(struct soft_cpu *cpu, uint64_t rip, uint32_t mode);
/* The thunk of their stubs: what to go on with. */
void *soft_slot_miss(struct soft_cpu *cpu, uint64_t unused, uint64_t slot);
/* While nobody else executes. */
void check_jump_slots(const struct soft_cpu *cpu);

/* jump_site.c */
/* What a jump at this offset in its page says where its site, of this number, misses. */
static inline uint32_t soft_site_name(uint32_t site, uint64_t offset)
{
	return site % JUMP_SITES * PAGE_BYTES | (uint32_t)(offset & PAGE_OFFSET_MASK);
}
/* The thunk of misses: r10 is that name, r11 RIP, and thunk_floating what is behind it. */
struct emitter;
void soft_emit_site_thunk(struct emitter *emitter);
/*
 * The thunk of indirect entries of what floats and is dead: what to go on with at rip. No site
 * leads there any more.
 */
void *soft_dead_floating(struct soft_cpu *cpu, uint64_t unused, uint64_t rip);

/* invalidate.c */
void soft_invalidate(struct soft_engine *engine, uint64_t gpa, size_t bytes);
void soft_invalidate_locked(struct soft_engine *engine, uint64_t gpa, size_t bytes);
/* Whoever comes to one of its entries, by whatever way, comes to the dispatcher. */
void soft_lead_away(struct soft_engine *engine, const struct block *b);
/* Under the lock: this block of the frame's, which lives, dies. */
void soft_take_back(struct soft_engine *engine, struct block *b, uint64_t frame);
/* Whether the page gives its code up at the next write. */
bool soft_becomes_data(const struct soft_engine *engine, uint64_t frame);
/*
 * One instruction of at least five bytes, all in one aligned word of eight, becomes a jump: a
 * processor is before it or behind it. Both are addresses in code_write.
 */
void soft_replace_by_jump(uint8_t *at, const uint8_t *target);
/*
 * From now on every write to this frame comes to C. False: done, but the lock was given up
 * meanwhile, so that what was found before must be found again. Called with the lock.
 */
bool soft_protect_code(struct soft_cpu *cpu, uint64_t frame);
/*
 * The same where no processor has to be stopped for it, from any thread with the lock; false: it is
 * not protected.
 */
bool soft_try_to_protect_code(struct soft_engine *engine, uint64_t frame);
/* Under the lock: the frame has lost blocks; when it has none left, it may be written again. */
void soft_end_protection(struct soft_engine *engine, uint64_t frame);

/* trace.c */
/* Whether blocks of this mode can be traces. */
bool soft_may_be_trace(uint32_t mode);
/* The processor was kicked, and is at state.rip: a block that begins there may become a trace. */
void soft_note_kicked(struct soft_cpu *cpu);

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
/* The same of every jump out of a block that floats; of its name the offset in its page. */
void *soft_floating_miss(struct soft_cpu *cpu, uint64_t name);
/*
 * The same behind a jump of this block within its page, which from now on leads there itself.
 * in_word: where flags are there. link, home: addresses in code_run, of its rel32 and of where it
 * led first.
 */
void *soft_chain(struct soft_cpu *cpu, struct block *from, bool in_word, const uint8_t *home,
		 const uint8_t *link);
/* The same after delivering a fault of the instruction at state.rip. */
void *soft_raise(struct soft_cpu *cpu, const struct fault *fault);
