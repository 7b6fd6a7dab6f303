/*
 * The contract between a machine and what executes its processors. The software engine is one
 * implementation (engine_driver.h).
 *
 *   machine                                           engine
 *   engine_create, engine_cpu_create
 *   engine_prepare_thread   once per thread
 *   engine_run              -->  executes the guest;  engine_ops  -->  the machine, on
 *                                                     the processor's own thread
 *                           <--  enum engine_exit
 *   engine_get, engine_set  between two runs          engine_kick, engine_stop, engine_nmi: any
 *                                                     thread, at any time
 *
 * Errors are negative errno values. Every function that takes a processor may be called by its
 * own thread only, unless it says more.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/state.h"

struct guest_memory;
struct cpu_host;
struct cpu_model;
struct engine;
struct engine_cpu;

enum engine_exit {
	ENGINE_EXIT_NONE,
	ENGINE_EXIT_HALT,
	ENGINE_EXIT_KICK,
	ENGINE_EXIT_SHUTDOWN,
	ENGINE_EXIT_STOP
};
/*
 * What became of a hypercall instruction. AGAIN: it is executed once more, after pending
 * interrupts.
 */
enum engine_call { ENGINE_CALL_UNDEFINED, ENGINE_CALL_DONE, ENGINE_CALL_AGAIN };
/* The registers of a hypercall. gpr: 16 of them, live, in the order of the instruction set. */
struct engine_call_registers { uint64_t *gpr; bool protected_mode, long_mode; };

/*
 * What a processor asks of its machine. Called on its own thread; the guest's state does not
 * change meanwhile.
 */
struct engine_ops {
	uint64_t (*port_read)(void *context, uint16_t port, unsigned bytes);
	void (*port_write)(void *context, uint16_t port, unsigned bytes, uint64_t value);
	void (*mmio_read)(void *context, uint64_t gpa, void *to, size_t bytes);
	void (*mmio_write)(void *context, uint64_t gpa, const void *from, size_t bytes);
	/*
	 * 0, or -EINVAL for #GP. Only MSRs that the engine does not keep itself (x86_state has
	 * those).
	 */
	int (*msr_read)(void *context, uint32_t msr, uint64_t *ret_value);
	int (*msr_write)(void *context, uint32_t msr, uint64_t value);
	/* Some of it depends on CR4 and XCR0: engine_get(). */
	void (*cpuid)(void *context, uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
	/* The vector to deliver now, or -1. Taking it acknowledges it. */
	int (*interrupt)(void *context);
	/* CR8 is the local APIC's task priority class. */
	uint8_t (*get_cr8)(void *context);
	void (*set_cr8)(void *context, uint8_t value);
	/* VMCALL or VMMCALL at CPL 0. UNDEFINED: #UD. */
	enum engine_call (*hypercall)(void *context, const struct engine_call_registers *registers);
};

/* ---- life ---- */

/*
 * What an engine may use of the host's memory beside the guest's, for all of this many processors.
 */
#define ENGINE_LEAST_OVERHEAD_BYTES (64ull << 20)
#define ENGINE_DEFAULT_OVERHEAD_BYTES (384ull << 20)
/* What of the engine may be left out, for tests and measures (docs/engine.md). */
enum engine_without {
	ENGINE_WITHOUT_SPACES = 1,  /* only the current address space is kept */
	ENGINE_WITHOUT_TABLES = 2,  /* page tables are not watched: a flush drops everything */
	ENGINE_WITHOUT_BATCHES = 4, /* an entry is made for what is looked up, and no other */
	ENGINE_WITHOUT_WORDS = 8,   /* every block begins with the guest's flags in the host's */
	/* events and IRET of 64-bit code take the way that every mode takes */
	ENGINE_WITHOUT_SHORTCUTS = 16,
	ENGINE_WITHOUT_PAGES = 32, /* each jump that is not known walks the page tables */
	ENGINE_WITHOUT_VICTIMS = 64, /* a jump that another displaced is not known any more */
	/* each copy of a guest's instruction is looked at again; one that is wrong ends it */
	ENGINE_WITHOUT_TRUST = 128,
	ENGINE_WITHOUT_DEAD_FLAGS = 256, /* a fault finds all flags, whoever overwrites them */
	ENGINE_WITHOUT_SHARING = 512,    /* each processor caches each address space for itself */
	ENGINE_WITHOUT_TRIMS = 1024,     /* an idle machine gives nothing back */
	ENGINE_WITHOUT_USES = 2048,      /* the oldest code goes, and not what was used least */
	ENGINE_WITHOUT_SLOTS = 4096,     /* a kernel's jumps to known addresses compare, too */
	ENGINE_WITHOUT_STRIPS = 8192,    /* each iteration of a loop has its lookups */
	ENGINE_WITHOUT_INDEXES = 16384,  /* that of a table of 256 is looked up as any other */
	ENGINE_WITHOUT_TRACES = 32768,   /* no block goes on where its jumps lead */
	ENGINE_WITHOUT_WAITING = 65536,  /* each does, and not only what is hot */
};
struct engine_options {
	uint64_t overhead_bytes;
	unsigned cpus;
	unsigned without; /* enum engine_without */
	/* of an address space: so many page tables may be written unseen before they are watched */
	unsigned mmu_tables_left_open;
	/* for engine_take_code(); translated code then lies in memory that a profiler can name */
	bool notes_code;
	/* its lists lie in large pages: of a guest that goes on, and needs much of them at once */
	bool goes_on;
};

/* The memory outlives the engine. NULL: the host is short of memory. */
struct engine *engine_create(const struct guest_memory *memory,
			     const struct engine_options *options);
/* After its processors are destroyed. */
void engine_destroy(struct engine *engine);
/*
 * What the processors are: instructions and control bits that the model hides are not there;
 * without it everything is there that decodes. Before the first engine_run(). Both outlive the
 * engine.
 */
void engine_set_model(struct engine *engine, const struct cpu_model *model,
		      const struct cpu_host *host);
/* NULL: no memory, or too many. Processors are numbered in the order of their creation. */
struct engine_cpu *engine_cpu_create(struct engine *engine, const struct engine_ops *ops,
				     void *context);
/* While no processor of the engine runs; from any thread. */
void engine_cpu_destroy(struct engine_cpu *cpu);
/* Once on the thread that will run the processor, before its first engine_run(). */
int engine_prepare_thread(struct engine_cpu *cpu);
/* Where a fault of the engine's own is described before the process ends with 70. */
void engine_set_last_words(struct engine *engine, char *text, size_t bytes);

/* ---- state ---- */

enum engine_group {
	ENGINE_GENERAL = 1,   /* general registers, RIP, RFLAGS */
	ENGINE_SEGMENTS = 2,  /* segments, descriptor tables, CPL */
	ENGINE_CONTROL = 4,   /* CR0, CR2, CR3, CR4, EFER, XCR0; CR8 is the machine's */
	ENGINE_MSRS = 8,      /* SYSCALL, SYSENTER, PAT, TSC offset, ... */
	ENGINE_DEBUG = 0x10,
	ENGINE_VECTOR = 0x20, /* x87, SSE, AVX */
	ENGINE_EVENTS = 0x40, /* NMIs, interrupt shadow */
	ENGINE_ALL = 0x7f,
};
enum { ENGINE_VECTOR_BYTES = 832 };

struct engine_state {
	struct x86_state x86;
	bool nmi_pending, nmi_blocked;
	uint8_t fault_vector; /* of the last fault, for who describes a crash; read only */
	uint8_t vector[ENGINE_VECTOR_BYTES]; /* an XSAVE area in standard form */
};

/*
 * Copies the groups of registers; what else is in *state stays. While the processor does not run
 * from any thread, or on its own thread within engine_ops (there without ENGINE_VECTOR).
 */
void engine_get(const struct engine_cpu *cpu, unsigned groups, struct engine_state *state);
/*
 * As engine_get(). What was cached for the processor under other control registers, segments or
 * debug registers is forgotten. 0; -EBADMSG: the vector area is none that XSAVE writes for XCR0 =
 * 7, and nothing is changed. Within engine_ops: GENERAL only.
 */
int engine_set(struct engine_cpu *cpu, unsigned groups, const struct engine_state *state);
/* Within engine_ops: 16 bytes, the low half of YMM n (0 to 15), which may be changed. */
void *engine_call_xmm(struct engine_cpu *cpu, unsigned n);

/* ---- running ---- */

enum engine_exit engine_run(struct engine_cpu *cpu);
/* The processor asks engine_ops.interrupt() soon. From any thread, and from signal handlers. */
void engine_kick(struct engine_cpu *cpu);
/* engine_run() ends soon, with `why`. From any thread. */
void engine_stop(struct engine_cpu *cpu, enum engine_exit why);
/* Raises a non-maskable interrupt; whether one is pending. From any thread. */
void engine_nmi(struct engine_cpu *cpu);
bool engine_has_nmi(const struct engine_cpu *cpu);
/* Counters as one line of text; its length without the NUL, cut at bytes - 1. From any thread. */
size_t engine_statistics(const struct engine_cpu *cpu, char *text, size_t bytes);

/* ---- memory and translations ---- */

/* Guest memory [gpa, gpa + bytes) was written by somebody who is no processor. From any thread. */
void engine_memory_written(struct engine *engine, uint64_t gpa, size_t bytes);

/*
 * The machine has been idle for so many seconds in a row, to be said every second: what it has
 * translated goes back to the host, as often as that is worth the trouble of making again what is
 * still needed. From a thread that is no processor.
 */
void engine_trim(struct engine *engine, unsigned idle_s);

/* Pages of 4 KiB: [gva, gva + 4096 * pages). */
struct engine_gva_range { uint64_t gva; uint32_t pages; };
/*
 * TLB shootdown: the processors of which bit n is set in targets drop these ranges, or with count
 * 0 everything; entries of global pages only if `global`. On return none of them uses one any
 * more. Within engine_ops or from a thread that is no processor; not under a lock that a
 * processor takes while it executes the guest.
 */
void engine_flush(struct engine *engine, uint64_t targets, const struct engine_gva_range *ranges,
		  unsigned count, bool global);
/* guest_overlay_place(), and a TLB shootdown of everything. As engine_flush(). */
void engine_place_overlay(struct engine *engine, struct guest_memory *memory, unsigned overlay,
			  uint64_t gpa, bool read_only);
/*
 * The dirty log: sets bit n of *dirty (one per page of guest_memory_footprint_bytes()) for each
 * frame written since the last call, and returns how many it set. Writes that come later are of
 * the next call. Writes of the machine that it does not report with engine_memory_written()
 * (overlays) are in none. From a thread that is no processor; as engine_flush().
 */
uint64_t engine_take_dirty(struct engine *engine, uint64_t *dirty);
/*
 * Sets bit n of *written, as above, for each frame that was written since the engine was made,
 * also where the log was taken meanwhile, and maybe for some that were not. While nobody writes.
 */
void engine_find_written(struct engine *engine, uint64_t *written);
/*
 * These frames were written before the engine was there: engine_find_written() has them. Before the
 * first engine_run().
 */
void engine_note_written(struct engine *engine, uint64_t frame, uint64_t frames);
/*
 * From the next engine_take_dirty() on it notes which frames processors come to, or it does so no
 * more. As engine_take_dirty().
 */
void engine_note_use(struct engine *engine, bool notes);
/*
 * Sets bit n of *used, as above, for each frame that was noted, tables and code, too: no more than
 * `most`, the lowest ones.
 */
void engine_find_used(struct engine *engine, uint64_t *used, uint64_t most);
/* Where guest code is, of which the engine has made something: no more than a hint. */
struct engine_place { uint64_t gva, ways; uint32_t gfn; uint16_t offset, mode; };
enum { ENGINE_PLACES_MOST = 1 << 14 };
/*
 * What processors came to while that was noted, in about that order: how many, of
 * ENGINE_PLACES_MOST. Once it is noted no more, while no processor runs; once.
 */
unsigned engine_find_code(struct engine *engine, struct engine_place *ret);
/*
 * Makes of the code there what it is for a processor that comes to it; from one thread at a time
 * that is no processor, at any time. Whatever is named costs time and the engine's memory for code,
 * and nothing else. It may wait for the guest's memory.
 */
void engine_make_code(struct engine *engine, const struct engine_place *place);
/*
 * What engine_make_code() is going to be called for, as structs engine_place in a row, which need
 * not be aligned: what of one of them leads to another one is made with all that is said of that.
 * They are looked at until the next call, with 0, and say no more than hints. From the same thread.
 */
void engine_know_places(struct engine *engine, const uint8_t *places, size_t count);
/*
 * Of an engine that goes on: has the host give memory for these bytes of the code that is made
 * first, so that no processor waits for that. From a thread that is no processor, while they run.
 */
void engine_touch_ahead(struct engine *engine, size_t from, size_t end);

/*
 * Host code at `hva`, in this process, made of the guest's at `gva`; ENGINE_CODE_OWN: the engine's
 * own. Of user code that has several addresses, the first that it was made at.
 */
#define ENGINE_CODE_OWN UINT64_MAX
struct engine_code { uint64_t hva, gva; uint32_t bytes; };
/*
 * Where options.notes_code: what was made since the last call, the oldest first; how many of
 * `most`. *ret_lost: how many were made since the beginning of which nobody is told, since nobody
 * came to take them. A place is told again when something else is made there. From one thread at a
 * time. Not in what was forked: 0.
 */
unsigned engine_take_code(struct engine *engine, struct engine_code *ret, unsigned most,
			  uint64_t *ret_lost);

/*
 * What is translated of the guest's memory at one place: blocks, and the cold parts of each that
 * were made since. map: where the host's code of a guest instruction begins, from the begin of
 * both, and how far from gva it lies; from hot_begin on to hot_end it is sorted by host. Before
 * that is the entry, behind it are ways out.
 */
#define ENGINE_LISTED_ANYWHERE UINT64_MAX
enum { ENGINE_LISTED_GUEST_BYTES = 1024, ENGINE_LISTED_HOST_BYTES = 60 << 10 };
enum { ENGINE_LISTED_MAPS = 512 };
struct engine_listed {
	uint64_t gva, gpa; /* gva: the first that it was made at */
	uint16_t code_bits, insns, links; /* links: jumps that lead to other blocks by now */
	uint16_t guest_bytes, host_bytes, hot_begin, hot_end, maps;
	bool is_user, is_part;
	struct { uint16_t host, guest; int16_t from_gva; } map[ENGINE_LISTED_MAPS];
	uint8_t guest[ENGINE_LISTED_GUEST_BYTES]; /* of a part: its block's */
	uint8_t host[ENGINE_LISTED_HOST_BYTES];
};
/*
 * The n-th of which an instruction lies at gpa; where that is ENGINE_LISTED_ANYWHERE, that was
 * first made for gva. False: there are not so many. What there is may change between two calls.
 * From any thread that is no processor.
 */
bool engine_list(struct engine *engine, uint64_t gpa, uint64_t gva, unsigned n,
		 struct engine_listed *ret);

/* ---- forks ---- */

/*
 * In a process that was forked while no processor ran, before anything is mapped there: what only
 * cached the guest's page tables was not inherited, and its places are taken again. 0 or -errno.
 */
int engine_forked_bare(struct engine *engine);
/*
 * Then, before a processor runs: the engine goes on with
 * code memory of its own, code_fd (empty, to be mapped), in which is what was translated before.
 * Until it returns the code of the process that it was forked from is held, or no processor runs
 * there. engine_prepare_thread() comes again for each processor. 0 or -errno: then nothing can be
 * run.
 */
int engine_forked(struct engine *engine, int code_fd);
/*
 * Instead, where nothing is run any more: nothing is left of the other's code. The rest can be
 * looked at.
 */
void engine_leave_code(struct engine *engine);
/*
 * While no processor runs: from now on nobody changes translated code, and whoever would waits
 * until it is released, so that processors may run while somebody copies it. To release it waits
 * for nobody, and does nothing where none is held. Any thread.
 */
void engine_hold_code(struct engine *engine);
void engine_release_code(struct engine *engine);
