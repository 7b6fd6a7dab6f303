/*
 * Inside the translator: one block being made. Files, each using those above it:
 *
 *   translate_access.c    flags, addresses, lookups
 *   translate_copy.c      data instructions
 *   translate_control.c   exits, stack
 *   translate_inline.c    strings, privileged instructions
 *   translate_register.c  registers of the system
 *   translate_level.c     changes of the privilege level
 *   translate_stream.c    which accesses of a loop go through the same registers
 *   translate_strip.c     loops with one lookup for many iterations
 *   translate_insn.c      which way an instruction takes
 *   translate_cold.c      slow paths
 *   translate_ways.c      polls and stubs: the ways out of the hot code
 *   translate_group.c     one lookup for several accesses
 *   translate_gather.c    the guest's instructions, and which flags are looked at later
 *   translate_trace.c     the same of a block that goes on where its jumps lead
 *   translate.c           a block from its bytes to its code, for the first time and again
 *   translate_draft.c     a block that is made without the lock
 *   translate_encoding.c  the canonical host encoding
 *   translate_validate.c  copies looked at again
 */
#pragma once

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "emit.h"
#include "translate.h"
#include "translate_encoding.h"

enum { MAX_INSNS = 64, MAX_COLD = 448, MAX_WAYS = 2 * MAX_COLD + STUBS_OF_ENTRIES };

/*
 * live_in: arithmetic flags that are looked at later. needs_flags: host flags must be the guest's
 * when it executes.
 */
struct guest_insn {
	struct x86_insn insn;
	uint64_t rip;
	uint16_t at; /* from the begin of the bytes that are kept */
	uint8_t live_in;
	bool needs_flags;
	bool is_followed; /* what comes next in the block is what it leads to: translate_trace.c */
};

/*
 * A slow path. Where the hot code leaves for it r11 is nobody's, r10 holds the address if
 * ea_in_r10, that of the last byte if last_in_r10 as well (ea is relative to it), and host flags
 * are the guest's unless flags_in_word or nobody looks at them.
 */
struct cold {
	enum { COLD_MEMORY, COLD_CHAIN, COLD_POLL, COLD_KICKED, COLD_SYSTEM, COLD_GROUP } kind;
	uint8_t *from[8]; /* rel32s that lead here */
	unsigned from_count;
	/*
	 * crossing: the jump taken when the access may cross a page; where there is one branch for
	 * both, with the entry in r11, lookup is where one that does not goes on
	 */
	uint8_t *crossing, *lookup, *back, *after;
	uint8_t *slow; /* once it is emitted: where from[] leads */
	struct host_mem ea;
	bool ea_in_r10, last_in_r10, one_branch, write, read, flags_in_word, keeps_result, restores;
	/* of a group: before and behind it */
	bool host_flags, word_flags, end_host_flags, end_word_flags;
	uint16_t insn, insns; /* index; of a group: how many */
	uint16_t bytes, unit_bytes; /* of the access, and what it may not cross */
	uint64_t target;
};

/* A way out of the hot code, and its stub. */
struct way {
	struct way_out out;
	uint16_t cold;   /* index */
	bool crossing;   /* the way of cold.crossing */
	uint8_t *from;   /* of one that is not cold.from[]: the rel32 that leads here */
};

struct translation {
	struct emitter emitter;
	struct soft_engine *engine;
	uint64_t rip; /* of the first */
	uint32_t mode;
	unsigned code_bits;
	bool flat;
	uint64_t cs_base, page; /* linear page of the block */
	struct guest_insn insns[MAX_INSNS];
	unsigned count;
	struct cold cold[MAX_COLD];
	unsigned cold_count;
	struct guest_insn *at;
	uint8_t *base;
	struct block *block;
	uint64_t rip_mask;
	bool ended, next_straddles;
	uint8_t *r10_end;            /* code that ends here leaves the value of r10_guest in r10 */
	uint8_t r10_guest;
	/* rel32s that are told what is behind the hot code: translate_ways() */
	uint8_t *restores;           /* of the indirect entry, which brings flags back */
	uint8_t *missed;             /* of a jump to another page, by a site of that number */
	uint32_t missed_site;
	bool is_part;                /* a cold part is emitted, by itself */
	uint8_t *return_end;         /* the same of the address behind a call */
	/* the guest's bytes, each read once; source: the rest of its page */
	const uint8_t *source;
	unsigned source_bytes, have;
	uint8_t bytes[MAX_INSNS * X86_INSN_MAX_BYTES];
	struct pc_map maps[MOST_MAPS];
	unsigned map_count;
	struct way ways[MAX_WAYS];
	unsigned way_count;
	uint32_t next_site;          /* of jumps to other pages: code/jump_site.c */
	bool is_again;               /* into scratch: nobody hears of its copies */
	bool is_draft;               /* without the lock: translate_draft.c */
	unsigned r10_ahead;          /* where the last lookup left r10: struct emitted_copy */
	bool grouped;                /* r11 is the delta of the access to come: no lookup */
	bool in_table;               /* that is one in a table: of all that its index may lead to */
	uint8_t group_base;          /* of the group */
	int group_last;              /* its last instruction */
	int32_t stack_bytes;         /* how far the guest's RSP is from the host's, in it */
	struct cold no_cold;         /* what stands for its slow path meanwhile */
	struct strip *strip;         /* its loop in strips, in front; NULL: none, or it is done */
	bool in_strip;               /* that is being emitted */
	bool flags_set;              /* the instruction's translation has set the next two itself */
	/* where the guest's flags are now: in the host's, in flags_word, or in both */
	bool host_flags, word_flags;
};

static inline bool displaced(uint8_t reg)
{
	return reg == 10 || reg == 11 || reg == 14 || reg == 15;
}
static inline struct host_mem slot(uint8_t reg)
{
	return cpu_mem(offsetof(struct soft_cpu, state.gpr) + 8u * reg);
}
static inline struct emitter *out(struct translation *translation) { return &translation->emitter; }

struct renaming {
	uint8_t guest[4], host[4], use[4];
	bool high[4];
	unsigned count;
	uint8_t spilled; /* a guest register lent as third scratch, or NO_REG */
};

struct group {
	unsigned insns, accesses;
	uint8_t base;
	bool read, write;
	int32_t low, high, offset;
	bool closed;
	bool is_table; /* one access, whose index is a byte */
};

/*
 * Where the address of an access is: in guest registers, so that r10 is free; in r10; there, and
 * known not to cross a page; there that of its last byte.
 */
enum address_place { IN_REGISTERS, IN_R10, IN_R10_WITHIN_PAGE, LAST_IN_R10 };

static const struct host_mem pushed = { .base = RSP, .index = R11, .disp = -8 };
static const struct host_mem popped = { .base = RSP, .index = R11 };

/* translate_access.c */
struct cold *translate_new_cold(struct translation *translation, int kind);
void translate_save_flags(struct translation *translation);
void translate_leave_flags(struct translation *translation);
void translate_want_flags(struct translation *translation);
void translate_end_access(struct translation *translation, struct cold *cold);
bool translate_simple_address(const struct translation *translation, const struct x86_insn *insn,
			      unsigned bytes);
bool translate_indexed_address(const struct translation *translation, const struct x86_insn *insn,
			       unsigned bytes);
uint64_t translate_jump_target(const struct translation *translation,
			       const struct guest_insn *guest_insn);
uint64_t translate_after_insn(const struct translation *translation);
/* reg = an address that is known relative to the block's: of one that floats, from code_page. */
void emit_rip(struct translation *translation, uint8_t reg, uint64_t value);
void emit_address(struct translation *translation, const struct x86_insn *insn, uint8_t reg,
		  unsigned bytes);
void emit_segment_base(struct translation *translation, const struct x86_insn *insn);
enum address_place emit_linear(struct translation *translation, const struct x86_insn *insn,
			       unsigned bytes);
/* Where the access is, as emit_linear() has left it. */
struct host_mem translate_placed(enum address_place place, unsigned bytes);
void emit_entry_to(struct translation *translation, uint8_t to, uint8_t address, bool write);
void emit_entry(struct translation *translation, uint8_t address, bool write);
/* to = from where cc holds: what no branch predicts. */
void emit_cmov(struct emitter *emitter, uint8_t cc, uint8_t to, uint8_t from);
/*
 * Where cc holds the entry in r11 is none: afterwards neither its lowest bit is set, nor does it
 * lead to an address that anybody knows, who does not know the poison.
 */
void emit_drop_entry(struct translation *translation, uint8_t cc);
struct cold *emit_lookup(struct translation *translation, struct host_mem ea,
			 enum address_place place, unsigned bytes, bool read, bool write);

/* translate_copy.c */
void translate_collect(const struct x86_insn *insn, struct renaming *renaming, bool needs_rex);
void translate_copied(struct translation *translation, const uint8_t *start,
		      unsigned looked_up_bytes);
void translate_copy_at(struct translation *translation, struct host_mem access);
void translate_copy_memory(struct translation *translation);
void translate_copy_lea(struct translation *translation);
void translate_copy_registers(struct translation *translation);

/* translate_control.c */
void translate_miss(struct translation *translation);
/* Behind a jump by that site, at t->at, that does not know the way. */
void translate_miss_site(struct translation *translation, uint32_t site);
void translate_exit_constant(struct translation *translation, uint64_t target);
/*
 * From t->at to a target in another page, of a kernel's 64-bit code, by a slot; in_word: where the
 * flags are. False: not so, or there are no more slots.
 */
bool translate_exit_by_slot(struct translation *translation, uint64_t target, bool in_word);
/*
 * A jump by displacement whose target is not canonical: C says so, where it is. Of code that floats
 * soft_floating_miss() does.
 */
bool translate_leaves_addresses(const struct translation *translation,
				const struct guest_insn *guest_insn);
bool translate_same_page(const struct translation *translation, uint64_t target);
void translate_align_rel32(struct translation *translation, unsigned opcode_bytes);
void translate_exit_indirect(struct translation *translation, bool user);
/* To a known target that another block has. */
void translate_leave_page(struct translation *translation, uint64_t target);
void translate_exit_direct(struct translation *translation, uint64_t target);
void translate_loop_back(struct translation *translation);
bool translate_is_plain_loop(const struct translation *translation, uint64_t target);
void translate_jump_out(struct translation *translation, uint64_t target);
void translate_side_exit(struct translation *translation, uint8_t cc, uint64_t target);
void translate_align_data(struct translation *translation);
void translate_system_exit(struct translation *translation);
void translate_leave_for_system(struct translation *translation);
void translate_or_else(struct translation *translation, struct cold *cold, uint8_t cc);
void translate_push_register(struct translation *translation, uint8_t reg);
void translate_push_return(struct translation *translation);
void translate_push_constant(struct translation *translation, uint64_t value);
void translate_push_r10(struct translation *translation); /* flags are saved, or left there */
void translate_pop_register(struct translation *translation, uint8_t reg);
void translate_leave_frame(struct translation *translation);
void translate_return_near(struct translation *translation, unsigned extra);
bool translate_indirect(struct translation *translation);
void translate_counted_jump(struct translation *translation);

/* translate_inline.c */
bool translate_inline_string(struct translation *translation);
bool translate_inline_cli(struct translation *translation);
bool translate_inline_sti(struct translation *translation);
bool translate_inline_smap(struct translation *translation, bool set);
bool translate_inline_swapgs(struct translation *translation);
bool translate_inline_read_segment(struct translation *translation);
bool translate_inline_pushf(struct translation *translation);
bool translate_inline_popf(struct translation *translation);

void translate_flags_to_r10(struct translation *translation);
void translate_flags_from_r10(struct translation *translation);

/* translate_register.c */
void translate_read_time(struct translation *translation);
void translate_read_time_and_processor(struct translation *translation);
void translate_set_direction(struct translation *translation);
bool translate_fs_gs_base(struct translation *translation);
bool translate_read_control(struct translation *translation);

/* translate_level.c */
bool translate_syscall(struct translation *translation);
bool translate_sysret(struct translation *translation);
/* The tables of a view (enum view) become those that are looked up in. */
void translate_enter_view(struct translation *translation, unsigned view);

/* translate_strip.c */
struct strip;
/* In front of the block, if that is a loop: *strip is what translate_end_strip() needs. */
void translate_begin_strip(struct translation *translation, struct strip *strip);
/* At the loop's jump, where that is not taken: exits of the strips. */
void translate_end_strip(struct translation *translation);

/* translate_insn.c */
bool translate_is_fpu_off(const struct translation *translation, const struct x86_insn *insn);
void translate_insn(struct translation *translation);

/* translate_cold.c */
void translate_sort_out_one(struct translation *translation, const struct cold *cold);
/* Cold parts from this one on, with those that come up on the way; c->slow is set. */
void translate_cold_parts(struct translation *translation, unsigned from);
void translate_cold_part(struct translation *translation, struct cold *cold);
void translate_add_map(struct translation *translation, const struct guest_insn *guest_insn,
		       bool in_word);

/* translate_ways.c: behind the hot code: polls, stubs */
void translate_ways(struct translation *translation);

/* translate_gather.c */
/* From t->source; 0, or a fault when not even the first can be read. */
int translate_gather(struct translation *translation, const struct code_place *place,
		     struct fault *fault);
/* What was gathered once, from the bytes that were kept. */
void translate_gather_again(struct translation *translation, const struct block *b);
void translate_find_live_flags(struct translation *translation);
/* The instruction behind the last is decoded. */
void translate_append(struct translation *translation, uint64_t rip, unsigned at);
/*
 * A jump back into the middle of the block is a loop's: the block ends in front of that, so that
 * the loop is one that jumps back to its own begin (translate_strip.c) from its first iteration on,
 * and is there once.
 */
bool translate_ends_before_loop(struct translation *translation);
/*
 * A block that has so many instructions ends behind its next conditional jump. What lies behind one
 * is often never executed, or is where a block begins already; in shorter blocks whole loops do not
 * fit.
 */
enum { ENOUGH_INSNS = 8 };

/* translate_trace.c */
/*
 * From t->rip on, of whose page these are the bytes. False: nothing in it is followed, so that it
 * is what translate_gather() finds; or not all of it can be in a block.
 */
bool translate_gather_trace(struct translation *translation, const uint8_t *page);
void check_followed(const struct translation *translation);
/* What was gathered once. */
void translate_gather_trace_again(struct translation *translation, const struct block *b);
/* Where a jump leads that the block may leave by. */
uint64_t translate_side_target(const struct translation *translation,
			       const struct guest_insn *guest_insn);

/* translate_group.c */
bool translate_changes(const struct x86_insn *insn, uint8_t reg);
/* Of registers alone, none of them RSP; it cannot fault, and goes on behind itself. */
bool translate_keeps_still(const struct x86_insn *insn);
struct group translate_find_group(struct translation *translation, unsigned n);
struct cold *translate_open_group(struct translation *translation, const struct group *group);
void translate_close_group(struct translation *translation, struct cold *cold);
void translate_follow_flags(struct translation *translation);
/* The group's instructions one by one, with a lookup each. */
void translate_cold_group(struct translation *translation, struct cold *cold);

/* translate.c */
/* The guest's instructions there; -EFAULT: *fault. */
int translate_begin(struct translation *translation, struct soft_engine *engine,
		    const struct code_place *place, struct fault *fault);
/* The block, as far as these say it. */
void translate_describe(struct translation *translation, const struct code_place *place,
			struct block *b);
/* At translation->emitter.out, the same each time. */
void translate_emit_block(struct translation *translation);
/* The invariants of what was emitted. */
void check_translation(const struct translation *translation);
/* Its cold parts know where they are when the hot code is where the block is. */
void translate_move_cold(struct translation *translation, ptrdiff_t by);
/* The cold part of the block that was emitted last, as soft_translate_part(). */
void *translate_part(struct translation *translation, struct block *b, unsigned stub);
/* The maps, and what the block is made again from; the end of its code, from code_write. */
void translate_keep(struct translation *translation, struct block *b, size_t end);
