/*
 * Records between the broker and a machine process: one producer, one consumer, in memory that both
 * map. The other side is hostile: what it can write is read once, checked, then used; the layout is
 * fixed at compile time.
 *
 *   struct ring_memory   head (producer's), tail (consumer's), data: RING_BYTES, records { u32
 *                        kind, u32 bytes, payload, pad to 8 }
 *
 *  1. Each side trusts only its own copy of its own index. The other's is taken modulo nothing: a
 *     distance of more than RING_BYTES is rubbish, and so is a record that does not lie in the
 *     distance.
 *  2. A record is copied out before it is looked at.
 *  3. A put never waits; ring_wait() sleeps on the consumer's index.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "block.h"
#include "trace_ring.h"

enum { RING_BYTES = 1 << 16, RING_RECORD_MAX_BYTES = 8192 };

struct ring_memory {
	_Alignas(64) uint32_t head;
	_Alignas(64) uint32_t tail;
	uint32_t producer_waits;
	_Alignas(64) uint8_t data[RING_BYTES];
};

/* One side of one ring. wake_fd: the eventfd that the consumer polls; written by the producer. */
struct ring_end { struct ring_memory *memory; uint32_t at; int wake_fd; };

/* 0; -EAGAIN: no room now; -EMSGSIZE; -EBADMSG: the other side's index is rubbish. */
int ring_put(struct ring_end *end, uint32_t kind, const void *data, uint32_t bytes);
/*
 * The same in two steps, of several records of which the consumer is told once: behind the last,
 * and before ring_wait().
 */
int ring_add(struct ring_end *end, uint32_t kind, const void *data, uint32_t bytes);
int ring_wake(const struct ring_end *end);
/* Invariant 1, of this side's own index: what the other side wrote is never asserted. */
void check_ring_end(const struct ring_end *end);
/* Until half of the ring is free. */
void ring_wait(struct ring_end *end);
/*
 * 1: a record in *ret_kind, data (RING_RECORD_MAX_BYTES), *ret_bytes; 0: none; -EBADMSG: rubbish.
 */
int ring_get(struct ring_end *end, uint32_t *ret_kind, void *data, uint32_t *ret_bytes);

/* What is said. Machine process to broker: */
enum {
	RECORD_CONSOLE = 1, /* bytes of the console */
	RECORD_STARTED, /* struct record_ram, or nothing: the guest runs from here on */
	RECORD_REFUSED, /* i32 errno, text: the machine could not be made */
	RECORD_ENDED, /* i32 enum machine_end, i32 debug exit code, text of the crash */
	RECORD_STATISTICS, /* text */
	RECORD_SAVED, /* bytes of a saved machine, or what RECORD_READ has asked for */
	RECORD_SAVE_ENDED, /* i32: 0, and the machine stands still; or -errno, and it runs */
	RECORD_STATE, /* struct record_state */
	RECORD_STUCK, /* text: the guest can never go on */
	/* i32: 1, the guest was asked to power off; or 0, nobody in it listens */
	RECORD_SHUTTING_DOWN,
	/* text, among it lines "mmu: name count, ...", one for each processor; then registers */
	RECORD_COUNTERS,
	RECORD_REGISTERS, /* struct record_registers, one for each processor */
	RECORD_FORK_READY, /* i32: 0, and the machine stands still; or -errno, and it runs */
	RECORD_KEYS, /* text: what the guest says of itself, a line KEY=VALUE each */
	RECORD_FROZEN, /* i32: 0 or -errno, of the last RECORD_FREEZE or RECORD_THAW */
	/* after RECORD_SHOW: a row of the screen, 3 bytes for a pixel; after RECORD_LIST: bytes */
	RECORD_SHOWN,
	RECORD_SERVES, /* struct record_serves: FORKED_TO_SERVE, and it can be read */
	RECORD_DONE, /* struct record_done, of the last RECORD_TYPE, _SHOW, _LIST or _COPY_* */
	/* u64: of how much since the beginning nobody is told; then struct record_code, some */
	RECORD_CODE,
	RECORD_REJOINED, /* u64: where the span of the last RECORD_REJOIN began, which is done */
	RECORD_WANT_FORK, /* u32: 1, its guest wants it forked; 0, no longer */
	/* Broker to machine process: */
	RECORD_INPUT = 0x100, /* bytes for the console */
	RECORD_STOP,
	RECORD_SAVE,
	RECORD_RESUME, /* after a save or a fork */
	RECORD_SHUT_DOWN,
	RECORD_LOOK, /* asks for RECORD_COUNTERS and RECORD_REGISTERS */
	RECORD_MEMORY, /* u64: how many bytes the guest shall have; 0: what it asks for */
	/* u64: how many it shall have as long as nothing is set; 0: what it asks for */
	RECORD_ADVICE,
	/* nothing follows until it was forked, then RECORD_RESUME, perhaps RECORD_GO_ON before */
	RECORD_FORK,
	RECORD_FREEZE, /* the guest's file systems are to stand still, until RECORD_THAW */
	RECORD_THAW,
	/* One of these at a time: RECORD_DONE ends it. */
	RECORD_TYPE, /* scan codes of set 1 */
	RECORD_SHOW,
	RECORD_COPY_BEGIN, /* struct record_copy, then folder and name, each with its NUL */
	RECORD_COPY_PIECE, /* bytes */
	RECORD_COPY_END, /* u8: it is complete, or given up */
	RECORD_DISK, /* struct record_disk; answered by RECORD_DONE as those above */
	RECORD_READ, /* struct record_read; nothing else comes to one that serves */
	RECORD_LIST, /* struct listing_wanted (code_listing.h); answered as RECORD_SHOW */
	RECORD_FORK_ENDED, /* struct record_fork_ended: of the last RECORD_WANT_FORK */
	RECORD_REJOIN, /* struct record_span: of RAM, its own small pages may become large ones */
	RECORD_TRACE, /* u32: the set of kinds that are traced from here on (trace_ring.h) */
	RECORD_GO_ON, /* what it has been forked to copies its code yet: nothing but that changes */
};

/* Translated code in the machine process's memory; name: [A-Za-z0-9_.], and its NUL. */
enum { RECORD_CODE_NAME_BYTES = 60 };
struct record_code { uint64_t hva; uint32_t bytes; char name[RECORD_CODE_NAME_BYTES]; };

/* Where the machine process has the guest's RAM. */
struct record_ram { uint64_t hva, bytes; };
/* Of RAM, from its begin. */
struct record_span { uint64_t at, bytes; };

/* width and height: after RECORD_SHOW. */
struct record_done { int32_t error; uint32_t width, height; };
struct record_copy { uint64_t bytes, replaces; };
/* disk: of one that comes or grows. */
enum { DISK_COMES, DISK_GOES, DISK_GROWS };
struct record_disk { uint32_t what, number; struct block_disk disk; };
/* 0, and which child of the machine's lineage it is; or -errno. */
struct record_fork_ended { int32_t error; uint32_t child; };
/* error: 0 or -errno. bytes, parts_at: as machine_serve() has it. */
struct record_serves { int64_t error; uint64_t bytes, parts_at; };
struct record_read { uint64_t at, bytes; };

enum {
	STATE_ANSWERS = 1,
	STATE_SILENT = 2,
	STATE_MEMORY_DRIVER = 4,
	STATE_MEMORY_STATUS = 8,
	STATE_AUTOMATIC = 16,
	STATE_GROWS = 32,
	STATE_MEMORY_SILENT = 64,
	STATE_ADVISED = 128
};
struct record_state {
	uint64_t flags, held_bytes, assigned_bytes, target_bytes, available_bytes, committed_bytes;
	uint64_t reports, given_back_bytes, refused_regions, unused_regions;
};

enum { REGISTERS_MOST = 16 /* processors */, REGISTERS_SYMBOL_BYTES = 56 };
enum { REGISTERS_RUNS, REGISTERS_HALTED, REGISTERS_WAITS, REGISTERS_ASLEEP, REGISTERS_STATES };
struct record_registers {
	uint64_t gpr[16], rip, rflags, cr0, cr2, cr3, cr4, efer, lstar;
	uint32_t cs, ss, state, fault_vector;
	char symbol[REGISTERS_SYMBOL_BYTES]; /* as the guest's kernel calls the place; or empty */
};

/*
 * What both processes map. last_words: written before a machine process gives up on a fault of its
 * own.
 */
/*
 * What is forked runs; or does once it is told by its event, as who has to know it first may not
 * hear of its end; or is to be read, and never runs (vm/machine.h); or stands, so that others are
 * forked of it.
 */
enum forked_as { FORKED_TO_RUN, FORKED_TO_RUN_WHEN_TOLD, FORKED_TO_SERVE, FORKED_TO_STAND };

struct broker_memory {
	struct ring_memory to_broker, to_machine;
	char last_words[256];
	uint8_t generation[16]; /* drawn by who makes it: the guest's generation id */
	uint32_t forked_as; /* of one that is forked: enum forked_as */
	struct trace_memory trace;
};
