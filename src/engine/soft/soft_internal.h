/*
 * Inside the software engine. docs/engine.md explains the scheme; in short:
 *
 *   host register   while translated code runs
 *   r15, r14        read table, write table of the current view (both ...240C: table base and
 *                   BEXTR control in one)
 *   r11, r10        scratch
 *   gs:             struct soft_cpu of this processor
 *   all others      the guest registers of the same name; guest r10, r11, r14, r15 live in
 *                   cpu->state.gpr
 *
 * A table entry is 0 (not cached) or (host address - guest address) ^ poison, where its low 12 bits
 * are ones; it is indexed by bits 47:12 of the address, so a non-canonical address hits the entry
 * of a canonical one, and the access then lands on a non-canonical host address and faults: no
 * guest address reaches host memory that is not guest RAM.
 *
 * Not by speculation either: the poison is a secret number of the machine's, and what follows a
 * mispredicted test of an entry's presence adds it to the guest's address. Where that leads the
 * guest cannot choose (docs/engine.md, speculation).
 *
 * Everything here is compiled without vector registers: guest vector state stays in the host's
 * registers across helpers.
 */
#pragma once

#include <stddef.h>

#include "memory/memory.h"
#include "x86/cpu_model.h"
#include "x86/state.h"
#include "engine/engine_driver.h"
#include "lib/give_way.h"
#include "budget.h"
#include "lock.h"

/*
 * libc's own use vector registers, which hold guest state here. The assembler's words are for calls
 * that a compiler makes where nothing in the source says so: clang's to set and copy structures.
 */
__asm__("memcpy = soft_memcpy\n\tmemset = soft_memset");
void *memcpy(void *to, const void *from, size_t bytes) __asm__("soft_memcpy");
void *memset(void *to, int value, size_t bytes) __asm__("soft_memset");
/* never to be linked */
void *memmove(void *to, const void *from, size_t bytes) __asm__("soft_no_memmove");

/*
 * soft_cpu.pending: what the dispatcher has to do before, or instead of, going on. Written by the
 * processor's own thread; what others want is in soft_cpu.kick.
 */
enum {
	PENDING_STOP = 1,           /* soft_cpu.stop */
	PENDING_STEP = 2,           /* RFLAGS.TF: one instruction, then PENDING_STEP_TRAP */
	PENDING_STEP_TRAP = 4,      /* #DB behind the instruction that was executed with TF */
	PENDING_BREAKPOINTS = 8,    /* one is enabled in DR7 */
	PENDING_SINGLE = 0x10,      /* the next instruction in a block of its own */
	PENDING_WANT_ALONE = 0x20,  /* and with every other processor stopped (exclusive.c) */
	PENDING_ALONE = 0x40,       /* they are stopped */
	PENDING_STI_SHADOW = 0x80,  /* no interrupt before the next instruction is through */
	PENDING_MOV_SS_SHADOW = 0x100, /* nor a debug trap */
	PENDING_CHECKED = 0x200,    /* the operand of the instruction at checked_rip is good */
	/* both, divided by PENDING_STI_SHADOW: x86_state.interrupt_shadow */
	PENDING_SHADOW = PENDING_STI_SHADOW | PENDING_MOV_SS_SHADOW,
};
enum {
	CACHE_LINE_BYTES = 64,
	PAGE_BYTES = 4096,
	PAGE_OFFSET_MASK = PAGE_BYTES - 1,
	VIEWS = 3,
	VIEW_USER = 0,
	VIEW_KERNEL = 1,
	VIEW_KERNEL_AC = 2
};
#define TABLE_BIAS 0x240cull /* BEXTR: start 12, length 36 */
/*
 * From a table's base: its first entry, at a multiple of a cache line, and of a read table the
 * poison before it. Both are near enough for a displacement of one byte.
 */
enum { TABLE_FIRST = 0x34, TABLE_POISON = 4 };
#define TABLE_BYTES (1ull << 39)
#define TABLE_RESERVED_BYTES (TABLE_BYTES + 0x20000) /* to align the base, and what is before */
enum { TABLE_CHUNK_BYTES = 64 << 10 };
enum { JUMP_CACHE_BITS = 16, JUMP_CACHE_ENTRIES = 1 << JUMP_CACHE_BITS };

/*
 * sum: address + key of mode and epoch. Keys are secret 64-bit numbers, so that one comparison of
 * the whole sum tells both; a guest that wants a wrong hit has to guess the difference of two of
 * them.
 */
struct jump_entry { uint64_t sum, host; };
/* Of the running mode, so that it is made once. */
struct made_key { uint64_t meaning, key; };
/* Behind it: entries that others have displaced, by their sum. */
enum { JUMP_VICTIM_BITS = 11, JUMP_VICTIMS = 1 << JUMP_VICTIM_BITS };

/* Beside it: an entry for each of so many jumps of code that floats (code/jump_site.c). */
enum { JUMP_SITE_BITS = 16, JUMP_SITES = 1 << JUMP_SITE_BITS };

/*
 * What a page with code is, found by its address and key as jumps are, and while they are: behind a
 * jump that is not known no walk is needed.
 */
struct known_page { uint64_t sum, gpa; };
enum { KNOWN_PAGES = 2048 };

/* Places of blocks in which a processor was seen. */
enum { HOT_SEEN = 256 };

/*
 * Of the entry for an address. A product, so that functions whose addresses differ by a round
 * number do not meet; of 32 bits, as translated code does it.
 */
#define JUMP_HASH_FACTOR 0x9e3779b1u
static inline uint32_t soft_jump_index(uint64_t rip)
{
	return (uint32_t)rip * JUMP_HASH_FACTOR >> (32 - JUMP_CACHE_BITS);
}

/* Of loops in strips (translate/translate_strip.c), the last one each. */
enum { STRIP_HISTORIES = 256 };
struct strip_history { uint32_t skip, shorts, counted, left; };

struct block;
struct pc_map;
struct code_link;
struct code_region;
struct translation;
struct draft;

/* Jumps of kernel code to known addresses: code/jump_slot.c. */
enum { JUMP_SLOTS = 1 << 14, SLOTS_OF_A_PART = 64, NO_JUMP_SLOT = JUMP_SLOTS };
enum { SLOT_STUB_BYTES = 16, SLOT_BUCKETS = 2 * JUMP_SLOTS };
/* in_word: of the guest's flags, when it is taken. */
struct jump_slot_name { uint64_t rip; uint16_t mode; bool in_word; };

/* code/code.h: the code cache begins with thunks and the stubs of slots, regions follow. */
enum {
	CODE_SLOT_STUBS = 8192,
	CODE_THUNK_BYTES = CODE_SLOT_STUBS + JUMP_SLOTS * SLOT_STUB_BYTES,
	CODE_REGIONS = 32,
	HISTORY_ENTRIES = 1 << 18
};

/* What has become of a block (code/block_history.c). NONE: it lives. */
enum block_end { END_NONE, END_EVICTED, END_WRITTEN, BLOCK_ENDS };

/* Of the code cache, since its creation. made_again: by what became of the one before. */
struct code_counts {
	uint64_t made_first, made_again[BLOCK_ENDS];
	uint64_t traces; /* of blocks that were hot */
	uint64_t parts, evictions, waits, blocks_evicted;
	uint64_t regions_kept; /* since they were used: code/eviction.c */
	/* of times that one processor was alone, beside `waits`: exclusive.c */
	uint64_t protected_alone, accesses_alone;
	/* of idle machines (code/trim.c): so often, and so often it was soon made again */
	uint64_t regions_given_back, trims, regrets;
};

/* What an idle machine has given back: code/trim.c. */
struct code_trim {
	bool is_left_out;
	bool is_done;         /* once at least */
	bool is_judged; /* the last one was worth it or not, and patience_s is the next one's */
	unsigned patience_s;
	unsigned rest_s;      /* since the last one it was idle for so long at a time */
	bool is_settling;     /* since then nobody has looked what was made again at once */
	unsigned given_at_s;  /* so long it was idle then */
	size_t needed_bytes;  /* of code that was made again at once, if it stayed idle */
	uint64_t blocks;      /* that were given back */
	uint64_t again_until; /* counts.made_again[END_EVICTED] then */
	uint64_t made_until;  /* of all that were made until then */
	uint64_t made_at_look; /* the same when somebody looked last */
	unsigned restless_s;  /* so long it was idle when that was many */
};

/* follows the jump to the slow thunk; all offsets are relative to the site itself */
struct memory_site {
	int32_t bounce;
	uint8_t write : 1, locked : 1, stack : 1, read;
	uint16_t bytes;
};

enum { KICK_EVENT = 1, KICK_PARK = 2, KICK_FLUSH = 4, KICK_PASS = 8 };
enum { MAX_CPUS = 64, FLUSH_RANGES = 16 };

/*
 * Why a processor came to the dispatcher for a jump that its cache did not know: `umbra info
 * --code`. Nothing was there; the same block under another key, which a flush or another address
 * space has changed; another block.
 */
struct jump_counters { uint64_t first, stale, displaced, recalled, recovered; };

/* What became of translations: `umbra info --mmu`. */
struct mmu_counters {
	uint64_t switches_known, switches_new, spaces_reused, spaces_given_back;
	uint64_t syncs, syncs_looked, shadows_kept, shadows_dropped, forgotten, pages_flushed;
	uint64_t tables_opened, tables_closed, writers_looked_for, filled_ahead;
	uint64_t spaces_joined, late_entries; /* of the common ones: mmu/common.h */
	uint64_t shootdowns_taken; /* several that came together are one */
};

/* What was made, until it is taken: code/code_notes.c. head and tail count, and wrap. */
enum { CODE_NOTES = 1 << 16 };
struct code_notes { uint32_t head, tail; uint64_t lost; struct engine_code note[CODE_NOTES]; };

struct soft_cpu {
	struct engine_cpu base;
	/* so near that a displacement of one byte reaches it (translate_control.c) */
	_Alignas(CACHE_LINE_BYTES) struct jump_entry jump_cache[JUMP_CACHE_ENTRIES];
	struct jump_entry jump_sites[JUMP_SITES];
	struct x86_state state; /* as soft_state.c says */
	uint64_t flags_word;    /* byte 0: OF, byte 1: LAHF */
	uint64_t temp[4];
	void *resume;
	uint64_t commit_r11, poison; /* poison: the engine's, for translated code */
	struct soft_cpu *self;
	uint32_t kick;             /* KICK_*: polled by translated code */
	uint32_t interrupt_pending; /* 0 or 1: looked at when IF becomes 1 */
	uint8_t interrupt_flag;    /* RFLAGS.IF, 0 or 1 */
	/*
	 * Of the running mode, [user]: code of a level looks for its own, so that an inlined change
	 * of the level changes nothing here. no_key after a kick: nothing matches, the dispatcher
	 * is next.
	 */
	uint64_t jump_key[2];
	struct made_key made_keys[2]; /* [user]: what these are but for kicks */
	const uint64_t *slot_base; /* of jumps backwards: slots[], after a kick empty_slots[] */
	uint64_t read_table, write_table, host_rsp;
	void *thunk_memory, *thunk_commit, *thunk_system, *thunk_chain, *thunk_miss,
		*thunk_indirect, *thunk_floating, *thunk_way_out, *thunk_slot, *thunk_site;
	/* at a way out of hot code (code/late.c): the host's flags, as flags_word; r10, r11 */
	uint64_t way_flags, way_rax, way_scratch[2];
	uint64_t code_page; /* of the running block, where that floats (code/code.h) */
	uint64_t view_read[VIEWS], view_write[VIEWS]; /* of the current space */
	_Alignas(8) struct strip_history strips[STRIP_HISTORIES];
	_Alignas(64) uint8_t vector[PAGE_BYTES]; /* between engine_run() calls: an XSAVE area */
	/* its YMM registers while engine_ops run; the rest stays in the host's registers */
	_Alignas(64) uint8_t ymm[16][32];
	bool has_upper_halves;     /* that are not zero; otherwise the lower ones come back alone */
	_Alignas(64) uint8_t save_area[1024]; /* an operand of XSAVE or XRSTOR: may hold anything */
	_Alignas(64) uint8_t other_area[1024]; /* beside it, in insn/xsave.c */
	_Alignas(64) uint8_t bounce[2048 + 64];
	struct mmu *mmu;           /* mmu/space.h */
	uint8_t holder;            /* its bit in frame_holders[] */
	bool shares_holder;        /* others have the same one */
	struct mmu_counters count;
	struct jump_counters jumps;
	struct known_page known_pages[KNOWN_PAGES];
	struct jump_entry jump_victims[JUMP_VICTIMS];
	uint64_t hot_seen[HOT_SEEN]; /* code/trace.c */
	uint64_t slots[JUMP_SLOTS];
	bool slots_used[JUMP_SLOTS / SLOTS_OF_A_PART]; /* something was filled in there */
	bool in_user_view;         /* the view that soft_select_view() has set */
	uint64_t bounce_gva;
	struct memory_site *bounce_site;
	uint8_t *locked_hva; /* such an access is made where it is: fill.c */
	uint64_t locked_gpa;
	struct soft_engine *engine;
	uint64_t passed; /* soft_engine.pass at its last time at the top of the dispatcher */
	uint64_t forgotten; /* soft_engine.pass when jumps to closed regions were last forgotten */
	const struct engine_ops *ops;
	void *ops_context;
	enum engine_exit exit;
	void *signal_stack;
	uint64_t signal_vector, signal_rip, signal_word, signal_pc, signal_rax, signal_scratch[2],
		stack_retry_pc, stack_retry_work;
	uint32_t stack_retries, pauses;
	struct give_way way;
	bool signal_in_word, signal_in_block;
	uint64_t deliveries[32], fills, translations, misses, chains, systems, split_locks;
	uint32_t pending; /* PENDING_* */
	uint64_t checked_rip;
	/* of the last block that was entered in a shadow: where, and PENDING_SHADOW then */
	uint64_t shadow_rip;
	uint32_t shadow;
	bool watchpoints; /* one is enabled in DR7 for data */
	uint8_t watch_hits;
	bool nmi_blocked;
	uint8_t fault_vector; /* struct engine_state */
	bool fault_waits, fault_writes; /* mmu/batch.c */
	uint64_t fault_gva;
	uint32_t nmi_pending;
	/*
	 * enum engine_exit: by what it executed (PENDING_STOP), and by others (atomic, with a kick)
	 */
	uint32_t stop, stop_asked;
	/* mmu/shootdown.c */
	struct soft_lock flush_lock;
	uint32_t executing, flush_posted, flush_done, flush_count;
	bool flush_all, flush_all_global, flush_forgets;
	struct engine_gva_range flush[FLUSH_RANGES];
};

struct emitted_copy;

struct soft_engine {
	struct engine base;
	const struct guest_memory *memory;
	struct soft_budget budget;
	const struct cpu_model *model; /* NULL: everything that decodes */
	bool is_forked;      /* from another process's */
	bool clears_buffers; /* before user code runs: struct cpu_host, leaks_buffers */
	/* also what costs something: translate_access.c, translate_strip.c */
	bool bounds_all;
	uint8_t *ram; /* of it */
	uint8_t *code_write, *code_run;
	size_t code_bytes;
	bool goes_on; /* engine_options */
	struct code_region *regions;
	uint32_t open_region, next_region;
	uint32_t hand; /* code/eviction.c */
	size_t touched_bytes; /* of code, in pieces: code/touch.c */
	struct code_trim trim;
	uint64_t pass; /* how many regions have been closed */
	struct block *blocks;
	uint32_t *hash, *page_blocks, straddlers;
	struct pc_map *maps;
	struct code_link *links;
	uint8_t *kept; /* bytes that blocks were made from */
	uint32_t *history;
	struct code_counts counts;
	struct code_notes *notes; /* code/code_notes.c; NULL: nobody wants them */
	/* the block that is being made, and where one is made again */
	struct translation *translation;
	uint8_t *scratch;
	/* translate/translate_draft.c: of who makes code ahead, and of a processor meanwhile */
	struct draft *draft, *cpu_draft;
	uint32_t places_made; /* by who makes code ahead */
	struct known_places *known_places; /* code/ahead.c */
	struct soft_lock cpu_draft_lock;
	bool makes_ahead; /* atomic: a hint */
	uint8_t *frame_flags;     /* changed atomically */
	struct commons *commons; /* mmu/common.h; NULL: each processor has its own spaces */
	/* mmu/page_table.h; a count of what they say */
	uint8_t *frame_holders;
	uint32_t *table_versions;
	uint64_t table_changes;
	bool watches_tables, fills_ahead;
	bool notes_use; /* changed atomically; FRAME_USED, uses */
	struct code_uses *uses; /* code/ahead.c */
	bool enters_in_word;  /* translate/translate.c */
	bool takes_shortcuts; /* of 64-bit code: events, IRET */
	bool recalls_pages;   /* struct known_page */
	bool keeps_victims;   /* soft_cpu.jump_victims */
	bool uses_slots;      /* code/jump_slot.c; slot_*, empty_slots: its own */
	struct jump_slot_name *slot_names;
	uint16_t *slot_buckets; /* number + 1, by name */
	uint64_t *empty_slots;  /* the stubs */
	uint32_t slot_count;
	uint32_t sites; /* how many numbers code/jump_site.c has given */
	bool makes_traces, makes_traces_at_once; /* code/trace.c; at once: for tests */
	bool drops_dead_flags; /* translate_find_live_flags() */
	bool makes_strips;     /* translate/translate_strip.c */
	bool looks_up_tables;  /* whose index is a byte: translate/translate_group.c */
	bool evicts_by_use;    /* code/eviction.c */
	uint32_t tables_left_open; /* of a space */
	/* since it holds code: at WRITES_UNTIL_DATA its code is given up */
	uint8_t *frame_writes;
	/* blocks, hash, maps, page_blocks, code space, and what exclusive.c says */
	struct soft_lock lock;
	uint32_t code_held; /* code/code_hold.c: 0, 1, or 2: somebody waits */
	uint64_t secret, no_key;  /* of the jump caches */
	uint64_t poison;          /* of table entries */
	void *leave, *enter, *signal, *refresh, *reload, *dead_floating;
	uint64_t resume_jumps[16];
	unsigned resume_jump_count;
	struct soft_cpu *cpus[MAX_CPUS], *owner;
	uint32_t cpu_count, inside, change, times_alone;
	char *last_words;
	size_t last_words_bytes;
	/*
	 * Called for every copy of a guest's instruction, if set: validators
	 * (translate/translate_encoding.h).
	 */
	void (*on_copy)(void *context, const struct emitted_copy *copy);
	void *on_copy_context;
};

enum {
	FRAME_CODE = 1,
	FRAME_WRITTEN = 2,
	FRAME_STRADDLED = 4,
	FRAME_READ_ONLY = 8,
	FRAME_DIRTY = 16,
	FRAME_TABLE = 32, /* mmu/page_table.h */
	FRAME_TAKEN = 64, /* it was dirty when the log was taken (mmu/dirty.c) */
	FRAME_USED = 128  /* a processor came to it since engine_note_use() */
};
/* soft_mode(): 64-bit code has neither of the first two. */
enum {
	MODE_32_BIT = 1,
	MODE_16_BIT = 2,
	MODE_USER = 4,
	MODE_FPU_OFF = 8,
	MODE_NOT_FLAT = 16,
	MODE_AVX_OFF = 32,
	/*
	 * insn/limit.c. Of 16- and 32-bit code: an access by ES, SS or DS, or a jump, may meet a
	 * limit; one by FS; one by GS.
	 */
	MODE_LIMITED = 0x40,
	MODE_FS_LIMITED = 0x80,
	MODE_GS_LIMITED = 0x100,
	/*
	 * CR0.AM and RFLAGS.AC in user code. What comes to user code without the dispatcher leaves
	 * one with AC to C.
	 */
	MODE_ALIGNED = 0x200,
	MODE_CHECKS = MODE_LIMITED | MODE_FS_LIMITED | MODE_GS_LIMITED | MODE_ALIGNED,
	MODE_BITS = 0x3ff,
};

static inline uint8_t *soft_hva(const struct soft_engine *engine, uint64_t gpa)
{
	return guest_hva(engine->memory, gpa);
}

static inline uint64_t soft_frame(const struct soft_engine *engine, const uint8_t *hva)
{
	return (uint64_t)(hva - engine->ram) >> 12;
}

struct fault { uint8_t vector; bool has_code; uint32_t code; uint64_t address; };

static inline void soft_set_pending(struct soft_cpu *cpu, uint32_t which, bool on)
{
	cpu->pending = on ? cpu->pending | which : cpu->pending & ~which;
}

/* The processor leaves engine_run() at the next dispatch, for what it executed. */
static inline void soft_stop(struct soft_cpu *cpu, enum engine_exit why)
{
	cpu->stop = why;
	cpu->pending |= PENDING_STOP;
}

/* which: 0, PENDING_STI_SHADOW or PENDING_MOV_SS_SHADOW. */
static inline void soft_set_shadow(struct soft_cpu *cpu, uint32_t which)
{
	cpu->pending = (cpu->pending & ~(uint32_t)PENDING_SHADOW) | which;
}

/*
 * The instruction at state.rip has not been executed after all, and is next, in a block of its own:
 * no step is over, and what it was in the shadow of still holds.
 */
static inline void soft_begin_anew(struct soft_cpu *cpu)
{
	cpu->pending = (cpu->pending & ~(uint32_t)PENDING_STEP_TRAP) | PENDING_SINGLE;
	if (cpu->shadow_rip == cpu->state.rip)
		cpu->pending |= cpu->shadow;
}

static inline bool soft_canonical(uint64_t gva)
{
	return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

static inline bool soft_all_canonical(uint64_t gva, size_t bytes)
{
	return soft_canonical(gva) && soft_canonical(gva + bytes - 1);
}

/*
 * thunk.c: code that leads from translated code to C and back; written once, at the begin of the
 * code cache.
 */
void soft_make_thunks(struct soft_engine *engine, struct soft_cpu *cpu);
/* signal.c: what the signal thunk calls. */
void *soft_signal(struct soft_cpu *cpu);
int soft_engine_prepare_thread(struct engine_cpu *cpu);
/* Undoes it; on another thread that one must have ended. */
void soft_release_thread(struct soft_cpu *cpu);

/*
 * outside.c: around every call of engine_ops: the guest's YMM registers are kept, and others need
 * not wait for this processor.
 */
void soft_outside(struct soft_cpu *cpu);
void soft_inside(struct soft_cpu *cpu);
/* At the begin and the end of engine_run(): the guest's vector state, from and to cpu->vector. */
void soft_load_vectors(struct soft_cpu *cpu);
void soft_store_vectors(struct soft_cpu *cpu);

/*
 * The rest of soft_engine_driver: soft_state.c, outside.c, code/invalidate.c, code/listing.c,
 * mmu/shootdown.c, mmu/dirty.c.
 */
void soft_engine_get(const struct engine_cpu *cpu, unsigned groups, struct engine_state *to);
int soft_engine_set(struct engine_cpu *cpu, unsigned groups, const struct engine_state *from);
void *soft_engine_call_xmm(struct engine_cpu *cpu, unsigned n);
void soft_engine_memory_written(struct engine *engine, uint64_t gpa, size_t bytes);
void soft_engine_trim(struct engine *engine, unsigned idle_s);
unsigned soft_engine_take_code(struct engine *engine, struct engine_code *ret, unsigned most,
			       uint64_t *ret_lost);
bool soft_engine_list(struct engine *engine, uint64_t gpa, uint64_t gva, unsigned n,
		      struct engine_listed *ret);
void soft_engine_flush(struct engine *engine, uint64_t targets,
		       const struct engine_gva_range *ranges, unsigned count, bool global);
void soft_engine_place_overlay(struct engine *engine, struct guest_memory *memory, unsigned overlay,
			       uint64_t gpa, bool read_only);
uint64_t soft_engine_take_dirty(struct engine *engine, uint64_t *dirty);
void soft_engine_find_written(struct engine *engine, uint64_t *written);
void soft_engine_note_written(struct engine *engine, uint64_t frame, uint64_t frames);
void soft_engine_note_use(struct engine *engine, bool notes);
void soft_engine_find_used(struct engine *engine, uint64_t *used, uint64_t most);
unsigned soft_engine_find_code(struct engine *engine, struct engine_place *ret);
void soft_engine_make_code(struct engine *engine, const struct engine_place *place);
void soft_engine_know_places(struct engine *engine, const uint8_t *places, size_t count);
void soft_engine_touch_ahead(struct engine *engine, size_t from, size_t end);

/* soft_engine.c: the invariants of code/code.h and mmu/space.h, while nobody else executes. */
void check_engine(struct soft_engine *engine);
/* Zeroed memory that costs nothing until it is used; NULL. */
void *soft_reserve(size_t bytes);
/* The same; what is forked has zeros there. */
void *soft_reserve_own(size_t bytes);
/* The processor comes to the dispatcher soon, for KICK_*. From any thread. */
void soft_kick(struct soft_cpu *cpu, uint32_t why);

/* exclusive.c */
void soft_enter(struct soft_cpu *cpu);
void soft_exit(struct soft_cpu *cpu);
void soft_park(struct soft_cpu *cpu);
void soft_begin_alone(struct soft_cpu *cpu);
void soft_end_alone(struct soft_cpu *cpu);
