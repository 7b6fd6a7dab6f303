/*
 * A trace: what a machine's processors leave translated code for, in memory that the machine
 * process and its broker both map. Many producers, one consumer, who looks at it while a trace
 * runs.
 *
 *   struct trace_memory   head (producers'), tail (consumer's), dropped, record[TRACE_RECORDS]
 *
 *  1. Between the consumer's index and the producers' lie TRACE_RECORDS at most, and what the
 *     producers have in that memory is what they keep themselves.
 *
 *   - What the machine process can write is hostile: the consumer trusts only its own index, copies
 *     a record before it looks at it, and takes none of a kind or of a processor that there is not.
 *   - A record that finds no room is counted in `dropped`, and gone: no producer waits.
 *   - Off (no kind is wanted) it costs a load and a branch, which is always the same.
 *
 * A record is numbers; what they are called is said by trace_kind() alone. On the control socket
 * records go as they are here (umbra-control(7)).
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum trace_kind {
	TRACE_CPUID = 1,
	TRACE_MSR_READ,
	TRACE_MSR_WRITE,
	TRACE_PORT_READ,
	TRACE_PORT_WRITE,
	TRACE_MMIO_READ,
	TRACE_MMIO_WRITE,
	TRACE_PRIORITY_READ,
	TRACE_PRIORITY_WRITE,
	TRACE_HALT,
	TRACE_KICK,
	TRACE_HYPERCALL,
	TRACE_BUS_IN,
	TRACE_BUS_OUT,
	TRACE_INTERRUPT,
	TRACE_KINDS
};
enum { TRACE_RECORDS = 1 << 14, TRACE_NO_PROCESSOR = 0xffff, TRACE_TEXT_BYTES = 64 };
/* What record.kind can be in the set of what is wanted. */
#define TRACE_BIT(kind) (1u << (kind))

/* ns: CLOCK_MONOTONIC, of its begin; took_ns: until it was done, at most UINT32_MAX. */
struct trace_record {
	uint64_t ns, word[2];
	uint32_t took_ns;
	uint16_t kind, processor;
};

struct trace_memory {
	_Alignas(64) uint32_t head;
	uint64_t dropped;
	_Alignas(64) uint32_t tail;
	_Alignas(64) struct trace_record record[TRACE_RECORDS];
};

/* ---- what they are called ---- */

/* word: of the arguments; NULL: it has none. */
struct trace_name { const char *kind, *group, *word[2]; };

/* NULL: there is no such kind. */
const struct trace_name *trace_kind(unsigned kind);
/* Names of kinds and of groups (exits, hypercalls, bus, interrupts), by commas. False: none. */
bool trace_parse(const char *text, uint32_t *ret_wanted);

/* ---- producers ---- */

struct trace {
	struct trace_memory *memory; /* NULL: nobody can be told */
	uint32_t wanted;             /* a set of TRACE_BIT() */
	uint32_t head;               /* under the lock, like dropped */
	uint64_t dropped;
	pthread_mutex_t lock;
};

/* Also in what was forked, where others hold nothing; memory is then another's and empty. */
void trace_init(struct trace *trace, struct trace_memory *memory);
/* From any thread. */
void trace_want(struct trace *trace, uint32_t wanted);
static inline bool trace_wants(const struct trace *trace, enum trace_kind kind)
{
	return __builtin_expect(__atomic_load_n(&trace->wanted, __ATOMIC_RELAXED), 0) &&
	       __atomic_load_n(&trace->wanted, __ATOMIC_RELAXED) & TRACE_BIT(kind);
}
/* From any thread; takes its own lock only. */
void trace_put(struct trace *trace, const struct trace_record *record);
/* Invariant 1, of producers, with their lock. */
void check_trace(const struct trace *trace);

/* ---- the consumer ---- */

struct trace_reader {
	struct trace_memory *memory;
	uint32_t at;
	uint64_t dropped_before;
};

/* From here on: what is there already is nobody's. */
void trace_begin(struct trace_reader *reader, struct trace_memory *memory);
/* How many of `most` there were, of which ret has those wanted; -EBADMSG: rubbish. */
int trace_get(struct trace_reader *reader, uint32_t wanted, struct trace_record *ret,
	      unsigned most, unsigned *ret_count);
/* Since trace_begin(), as the machine says. */
uint64_t trace_dropped(const struct trace_reader *reader);
