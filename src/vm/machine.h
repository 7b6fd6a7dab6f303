/* One virtual machine: memory, processors, platform devices; from boot to its end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/linux.h"
#include "ipc/connection_slots.h"
#include "ipc/net_card.h"
#include "ipc/port_window.h"
#include "ipc/share_port.h"
#include "x86/state.h"
#include "x86/cpu_model.h"

struct listing_wanted;
struct block_memory;
struct block_disk;
struct machine;
struct trace_memory;

enum { MACHINE_MAX_CPUS = X86_MAX_PROCESSORS };
/*
 * FAILED: the host refused something that the machine needs. REFUSED: the kernel, the initrd or the
 * saved machine cannot be used. OUT_OF_TIME: it was not done within time_limit_s.
 */
enum machine_end {
	MACHINE_POWERED_OFF,
	MACHINE_STOPPED,
	MACHINE_CRASHED,
	MACHINE_RESET,
	MACHINE_DEBUG_EXIT,
	MACHINE_FAILED,
	MACHINE_REFUSED,
	MACHINE_OUT_OF_TIME
};

/* Those of a disk process (ipc/block.h); memory NULL: no disks. */
struct machine_disks { struct block_memory *memory; int doorbell_fd, answer_fd; };

/* Connections of its programs (ipc/connection_slots.h), with the answer event of the disks'. */
struct machine_connections { struct connection_memory *memory; int doorbell_fd; };
/* A network card (ipc/net_card.h). */
struct machine_card { struct net_card_memory *memory; int doorbell_fd, answer_fd; };

/* A port (ipc/share_port.h), the same way. */
struct machine_port {
	struct share_memory *memory;
	struct port_window *window;
	int doorbell_fd, answer_fd;
	uint8_t kind; /* share_port_kind(); of one that nobody is at its memory says none */
};

enum machine_health { MACHINE_HEALTH_UNKNOWN, MACHINE_HEALTH_GOOD, MACHINE_HEALTH_LOST };
/*
 * What the guest's drivers say: its heartbeat, and its memory (assigned and target are the
 * machine's own).
 */
struct machine_state {
	enum machine_health health;
	bool has_memory_driver, has_memory_status, automatic, is_advised;
	bool can_grow, is_silent;
	uint64_t held_bytes, assigned_bytes, target_bytes, available_bytes, committed_bytes;
	/* since it began */
	uint64_t reports, given_back_bytes, refused_regions, unused_regions;
	uint64_t key_changes; /* how often machine_read_keys() became another text */
};

/* What the guest's daemons say of it, a line KEY=VALUE each; and what it is given. */
enum { MACHINE_KEYS_BYTES = 4096 };

/* What a machine process may use beside its guest's memory (docs/isolation.md). */
#define MACHINE_LEAST_OVERHEAD_BYTES (64ull << 20)
#define MACHINE_DEFAULT_OVERHEAD_BYTES (384ull << 20)
#define MACHINE_MOST_OVERHEAD_BYTES (2048ull << 20)

/*
 * WAITS: for the interrupt that starts it. ASLEEP: halted with interrupts enabled, and no timer is
 * set: only a device or another processor wakes it.
 */
enum { MACHINE_SYMBOL_BYTES = 56 };
enum machine_cpu_state {
	MACHINE_CPU_RUNS,
	MACHINE_CPU_HALTED,
	MACHINE_CPU_WAITS,
	MACHINE_CPU_ASLEEP
};
/* Where a processor is. */
struct machine_registers {
	uint64_t gpr[16], rip, rflags, cr0, cr2, cr3, cr4, efer, lstar;
	uint16_t cs, ss;
	uint8_t state, fault_vector; /* enum machine_cpu_state; of the last fault */
	/* where RIP is, as the guest's kernel calls it; or empty */
	char symbol[MACHINE_SYMBOL_BYTES];
};

enum { MACHINE_CODES = 64 };
/* Host code at `hva` in this process, and what it is of the guest's: [A-Za-z0-9_.]. */
struct machine_code { uint64_t hva; uint32_t bytes; char name[MACHINE_SYMBOL_BYTES]; };

enum {
	MACHINE_WITHOUT_SPACES = 1,
	MACHINE_WITHOUT_TABLES = 2,
	MACHINE_WITHOUT_BATCHES = 4,
	MACHINE_WITHOUT_WORDS = 8,
	MACHINE_WITHOUT_SHORTCUTS = 16,
	MACHINE_WITHOUT_PAGES = 32,
	MACHINE_WITHOUT_VICTIMS = 64,
	MACHINE_WITHOUT_TRUST = 128,
	MACHINE_WITHOUT_DEAD_FLAGS = 256,
	MACHINE_WITHOUT_SHARING = 512,
	MACHINE_WITHOUT_TRIMS = 1024,
	MACHINE_WITHOUT_USES = 2048,
	MACHINE_WITHOUT_SLOTS = 4096,
	MACHINE_WITHOUT_STRIPS = 8192,
	MACHINE_WITHOUT_INDEXES = 16384,
	MACHINE_WITHOUT_TRACES = 32768,
	MACHINE_WITHOUT_WAITING = 65536
};

/* What memory is added in, while a machine runs. */
enum { MACHINE_REGION_BYTES = 128 << 20, MACHINE_DEFAULT_BUFFER_PERCENT = 20 };
enum { MACHINE_GENERATION_BYTES = 16 };

/* The host's monotonic clock and its TSC at one moment; zero: none. */
struct machine_moment { uint64_t ns, tsc; };
struct machine_moment machine_moment_now(void);

struct machine_options {
	uint64_t memory_bytes; /* at most */
	/*
	 * with how much of it the guest starts; 0: all. The rest is added while it runs, when there
	 * is a bus: both are whole regions then
	 */
	uint64_t start_bytes;
	unsigned cpus;
	struct boot_file kernel, initrd; /* mapped; the machine unmaps them once it has begun */
	/*
	 * what machine_save() wrote, instead of a kernel; it says memory, processors, features and
	 * debug_exit
	 */
	struct boot_file saved;
	/* by which who brings its pages while it runs is told of them (demand.h) */
	bool has_pager;
	int pager_fd;
	const char *command_line;
	/*
	 * MACHINE_GENERATION_BYTES that no other machine has (generation.c), also at the same place
	 * in one that was forked; NULL: there are none
	 */
	const uint8_t *generation;
	struct cpu_model model; /* machine_resolve_model(); of a saved machine what it says */
	struct cpu_host host;
	uint64_t hv_features; /* hv_parse_features() */
	/*
	 * where memory is not NULL there is a partition bus, with these and the other services on
	 * it
	 */
	struct machine_disks disks;
	unsigned cards;
	struct machine_card card[NET_CARDS];
	/* memory NULL: nobody connects to its programs */
	struct machine_connections connections;
	unsigned ports;
	struct machine_port port[SHARE_PORTS];
	/*
	 * what the guest has at least; less than memory_bytes: its memory is adjusted while it runs
	 */
	uint64_t least_memory_bytes;
	unsigned memory_buffer_percent; /* that it has beside what it needs */
	uint64_t overhead_bytes; /* what the engine may use beside the guest's memory (engine.h) */
	/* MACHINE_WITHOUT_*, as enum engine_without; engine.h */
	unsigned without, mmu_tables_left_open;
	bool test_device; /* chipset/test_device.h */
	bool display; /* a screen, where there is a bus; of a saved machine what it says */
	unsigned time_limit_s; /* while it runs; 0: none */
	/*
	 * Some milliseconds ago: from then on the host's TSC is measured, which otherwise takes
	 * that long
	 */
	struct machine_moment begun;
	uint16_t debug_exit; /* I/O port whose writes end the machine; 0: none */
	/* Called under the machine's lock with what the guest prints. */
	void (*console)(void *context, const uint8_t *data, size_t bytes);
	/*
	 * Of a machine with a bus: called every second when something has changed; NULL. Without
	 * the lock.
	 */
	void (*state)(void *context, const struct machine_state *state);
	/* machine_rejoin() is done with what begins there; on a thread of the machine. NULL: no */
	void (*rejoined)(void *context, uint64_t at);
	/* Of machine_freeze(): once, without the lock. NULL. */
	void (*frozen)(void *context, int error);
	/* Likewise of each machine_copy_*(), and of a disk that goes. */
	void (*copied)(void *context, int error);
	/*
	 * Which translated code there is, as it is made, at most MACHINE_CODES of it at a time;
	 * lost: of how much since the beginning nobody is told. Without the lock; not in what is
	 * forked.
	 * NULL: nobody wants to know, and code lies in other memory (engine.h, notes_code).
	 */
	void (*code)(void *context, uint64_t lost, const struct machine_code *codes,
		     unsigned count);
	const char *given_keys; /* NULL: none */
	/* Called under the machine's lock, once: the guest can never go on, and where it stands. */
	void (*stuck)(void *context, const char *text);
	/* The guest wants it forked, or no longer (hv/hv.h); NULL: it may not. */
	void (*want_fork)(void *context, bool is_wanted);
	/* where the engine says what happened before it gives up on a fault of its own */
	char *last_words;
	size_t last_words_bytes;
	/* where its exits are traced, also in what is forked of it; NULL: nowhere */
	struct trace_memory *trace;
	void *context;
};

/*
 * --cpu-model: text as cpu_model_resolve() reads it; host_mask: names with '-' before them of what
 * the host shall be taken not to have, or NULL. Fills model and host, for options->cpus. 0; or
 * -EINVAL or -ENOTSUP, and ret_reason is one line without an end.
 */
int machine_choose_model(struct machine_options *options, const char *text,
			 enum cpu_mitigations mitigations, const char *host_mask, char *ret_reason,
			 size_t reason_bytes);
/* Only the host, as a saved machine needs it. */
int machine_find_host(struct machine_options *options, const char *host_mask, char *ret_reason,
		      size_t reason_bytes);
/*
 * Lines of text, "key value", for umbra doctor: the host's processor; the model that was chosen.
 * Cut at bytes - 1.
 */
void machine_describe_host(const struct machine_options *options, char *text, size_t bytes);
void machine_describe_model(const struct machine_options *options, char *text, size_t bytes);
/* The n-th model's name and what it is; NULL after the last. */
const char *machine_model_name(unsigned n, const char **ret_summary);

/*
 * --hv: "default", "all", "none", names with + or -, by commas. False: ret_bad (bad_bytes) is the
 * part not understood.
 */
bool machine_parse_hv(const char *text, uint64_t *ret_features, char *ret_bad, size_t bad_bytes);
/* Whether disks can be reached with these: they are on the partition bus. */
bool machine_hv_has_bus(uint64_t features);
/* The name of feature n; NULL after the last. */
const char *machine_hv_feature(unsigned n);
/* What a saved machine's head says; -errno when it cannot be one that runs here. */
enum { MACHINE_SAVED_HEAD_BYTES = 128 };
struct machine_saved {
	uint64_t memory_bytes, start_bytes; /* start: 0 without a bus */
	unsigned cpus, cards;
	bool has_bus;
	uint8_t port[SHARE_PORTS]; /* share_port_kind() of each that it has */
};
int machine_read_saved(const struct boot_file *saved, struct machine_saved *ret);
/* What the guest has of its memory when it begins. */
uint64_t machine_start_bytes(const struct machine_options *options);
/*
 * What the machine uses at most of private memory: the guest's, the engine's budget, and what every
 * machine needs.
 */
uint64_t machine_ceiling_bytes(const struct machine_options *options);
/* NULL with *ret_reason when it cannot be made; *ret_error is the negative errno. */
struct machine *machine_create(const struct machine_options *options, int *ret_error,
			       const char **ret_reason);
void machine_destroy(struct machine *machine);
/*
 * RAM, from byte `at` of it: small pages that the machine has to itself may become large ones,
 * soon, if the host can; then options.rejoined. One such span at a time: another replaces what is
 * left of it, and a fork drops that. What lies outside of RAM is passed over. From any thread.
 */
void machine_rejoin(struct machine *machine, uint64_t at, uint64_t bytes);
/* Where pages lie that it can lend to others. */
uint8_t *machine_ram(const struct machine *machine, size_t *ret_bytes);
/*
 * A machine runs by these three, once each and in this order, on one thread.
 *
 * All threads are made, and have done what the process may give up its rights to from here on. 0,
 * or -errno: then the process is to end, and the threads with it.
 */
int machine_start_threads(struct machine *machine);
/*
 * Reads what it begins with, in a process that has given up its rights: that may be refused
 * (MACHINE_REFUSED). Then the guest runs.
 */
void machine_go(struct machine *machine);
/* Returns when the machine has ended and its threads are gone: why it did. */
enum machine_end machine_wait(struct machine *machine);
/*
 * From any thread: input for the console; how much was taken. Waits for machine_go(): what is
 * loaded then is the whole of the serial port.
 */
size_t machine_input(struct machine *machine, const uint8_t *data, size_t bytes);
/* Of a machine with a bus. */
void machine_read_keys(struct machine *machine, char ret[MACHINE_KEYS_BYTES]);
/*
 * The guest's file systems are to stand still, or to go on: 0, and options.frozen() says how it
 * ended; -ENOTCONN: nobody in the guest listens; -EBUSY; -EALREADY.
 */
int machine_freeze(struct machine *machine, bool freeze);
/*
 * Keys that are pressed and let go, as scan codes of set 1. 0; -ENOTCONN: nobody in the guest
 * listens; -EAGAIN: too many wait; -EINVAL.
 */
int machine_type(struct machine *machine, const uint8_t *codes, size_t bytes);
/*
 * A file into the guest (device/ic/file_copy.h): 0, and options.copied() says how it ended; or
 * -errno.
 */
int machine_copy_begin(struct machine *machine, const char *folder, const char *name,
		       uint64_t bytes, bool replaces);
int machine_copy_piece(struct machine *machine, const uint8_t *data, size_t bytes);
int machine_copy_end(struct machine *machine, bool is_complete);
/*
 * A disk that comes, goes or is larger now (storage.h). 0 or -errno; of one that goes
 * options.copied() says once nothing of it is under way.
 */
int machine_disk_comes(struct machine *machine, unsigned number, const struct block_disk *disk);
int machine_disk_goes(struct machine *machine, unsigned number);
int machine_disk_grows(struct machine *machine, unsigned number, uint64_t size_bytes);
/*
 * What is on the guest's screen, row by row, 3 bytes for a pixel. 0; -ENODEV: it has none;
 * -ENOTCONN: no driver of the guest's uses it; -EFAULT: its picture is not in its memory.
 */
enum { MACHINE_ROW_BYTES = 3 * 2048 };
int machine_show(struct machine *machine,
		 void (*row)(void *context, const uint8_t *pixels, size_t bytes), void *context,
		 uint32_t *ret_width, uint32_t *ret_height);
/*
 * Asks the guest to power off, which takes its time: false when no driver of its listens. From any
 * thread.
 */
bool machine_shut_down(struct machine *machine);
/*
 * How much of its memory the guest shall have; 0: as much as its status asks for. Of a machine with
 * a bus. From any thread.
 */
void machine_set_memory(struct machine *machine, uint64_t bytes);
/* What it shall have as long as nothing is set, as balloon_advise(). */
void machine_advise_memory(struct machine *machine, uint64_t bytes);
/*
 * Where the processors are. 0; -EAGAIN: not all have said so within a second, and of the others it
 * is what they said before; -ECANCELED: it has ended before it began, which
 * this waits for. From one thread at a time that is no processor's.
 */
int machine_look(struct machine *machine, struct machine_registers ret[MACHINE_MAX_CPUS],
		 unsigned *ret_cpus);
/*
 * What is translated at an address of the guest's, as ipc/code_listing.h has it, a block or part of
 * one at a time, at most LISTINGS_MOST of them. 0; -ENXIO: nothing is. From a thread that is no
 * processor's, with 256 KiB of stack.
 */
int machine_list(struct machine *machine, const struct listing_wanted *wanted,
		 void (*said)(void *context, const void *data, size_t bytes), void *context);
/*
 * From here on exits of these kinds (a set of TRACE_BIT(), ipc/trace_ring.h) are traced. From any
 * thread.
 */
void machine_trace(struct machine *machine, uint32_t wanted);
/* From any thread; not from a signal handler. */
void machine_stop(struct machine *machine);
/*
 * Writes the machine in pieces, the last of them while it stands still; so it does afterwards,
 * until machine_resume(). 0; -ECANCELED when the machine ended first, or what write returned: then
 * the machine runs. docs/saved-state.md. From a thread that is none of the machine's, one at a
 * time. -EOPNOTSUPP: it has the test device.
 */
int machine_save(struct machine *machine,
		 int (*write)(void *context, const void *data, size_t bytes), void *context);
void machine_resume(struct machine *machine);
/*
 * machine_fork.c. Until the machine stands still, to be forked; machine_resume() ends it. As
 * machine_save(), -EBUSY: it is being saved or forked.
 */
int machine_fork_begin(struct machine *machine);
/*
 * Its processors go on, while its translated code stays as it is until machine_resume(): what was
 * forked of it copies that. Who would change code waits, and as a device that gives the guest what
 * has come meanwhile may be one, devices go on by machine_go_on_whole(), from another thread than
 * machine_resume() comes from. False: it did not stand, and there is nothing to do.
 */
bool machine_go_on(struct machine *machine);
void machine_go_on_whole(struct machine *machine);
/*
 * In what was forked meanwhile, on its only thread. machine_take_code(): code_fd: empty memory for
 * translated code. Then it needs nothing of who it was forked from. machine_forked() before
 * anything else is mapped that has no place yet. After machine_forked_whole() rights can be taken
 * away; machine_fork_go(): the guest goes on. machine_wait() as before. Without machine_forked() it
 * stands as it is, and can be forked again. 0 or -errno.
 */
int machine_take_code(struct machine *machine, int code_fd);
int machine_forked(struct machine *machine);
int machine_forked_whole(struct machine *machine);
void machine_fork_go(struct machine *machine);
/*
 * What came of options.want_fork(): 0, and the number of the child; or -errno (hv/hv.h). From any
 * thread.
 */
void machine_fork_ended(struct machine *machine, int error, uint32_t child);
/*
 * served.c. Instead of machine_forked(), of a machine that never runs: it can be read as if
 * machine_save() had written it, *ret_bytes, of which those from *ret_parts_at on, and the first
 * MACHINE_SAVED_HEAD_BYTES, are what it begins with. From one thread, which has lost all rights
 * but memory. 0; -EOPNOTSUPP as machine_save(); -ENOMEM.
 */
int machine_serve(struct machine *machine, uint64_t *ret_bytes, uint64_t *ret_parts_at);
/* 0, or -EINVAL: there is nothing. */
int machine_serve_read(struct machine *machine, uint64_t at, void *to, size_t bytes);
/* Before: nothing is left of the code of the process that it was forked from. */
void machine_leave_code(struct machine *machine);
/* After MACHINE_REFUSED: why, and in *ret_error the negative errno. */
const char *machine_refusal(const struct machine *machine, int *ret_error);
/* After MACHINE_DEBUG_EXIT: (value & 0x7f) << 1 | 1, as QEMU's isa-debug-exit has it. */
int machine_debug_exit_code(const struct machine *machine);
/* What the guest said of its crash, or where it was when its time was up; NULL if nothing. */
const char *machine_crash_text(const struct machine *machine);
void machine_statistics(struct machine *machine, char *text, size_t bytes);
