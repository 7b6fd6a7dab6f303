/* See trace_ring.h. */
#include "trace_ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/check.h"
#include "record_ring.h"

_Static_assert(!(TRACE_RECORDS & (TRACE_RECORDS - 1)), "indices wrap at 2^32");
_Static_assert(sizeof(struct trace_record) == 32, "as it goes to who asks");

/* ---- what they are called ---- */

static const struct trace_name names[TRACE_KINDS] = {
	[TRACE_CPUID] = { .kind = "cpuid", .group = "exits", .word = { "leaf", "subleaf" } },
	[TRACE_MSR_READ] = { .kind = "msr-read", .group = "exits", .word = { "msr", "value" } },
	[TRACE_MSR_WRITE] = { .kind = "msr-write", .group = "exits", .word = { "msr", "value" } },
	[TRACE_PORT_READ] = { .kind = "port-read", .group = "exits", .word = { "port", "value" } },
	[TRACE_PORT_WRITE] = { .kind = "port-write",
			       .group = "exits",
			       .word = { "port", "value" } },
	[TRACE_MMIO_READ] = { .kind = "mmio-read", .group = "exits", .word = { "gpa", "value" } },
	[TRACE_MMIO_WRITE] = { .kind = "mmio-write", .group = "exits", .word = { "gpa", "value" } },
	[TRACE_PRIORITY_READ] = { .kind = "priority-read", .group = "exits", .word = { "value" } },
	[TRACE_PRIORITY_WRITE] = { .kind = "priority-write",
				   .group = "exits",
				   .word = { "value" } },
	[TRACE_HALT] = { .kind = "halt", .group = "exits" },
	[TRACE_KICK] = { .kind = "kick", .group = "exits" },
	[TRACE_HYPERCALL] = { .kind = "hypercall",
			      .group = "hypercalls",
			      .word = { "control", "result" } },
	[TRACE_BUS_IN] = { .kind = "bus-in", .group = "bus", .word = { "type", "bytes" } },
	[TRACE_BUS_OUT] = { .kind = "bus-out", .group = "bus", .word = { "type", "bytes" } },
	[TRACE_INTERRUPT] = { .kind = "interrupt", .group = "interrupts", .word = { "vector" } },
};

const struct trace_name *trace_kind(unsigned kind)
{
	return kind < TRACE_KINDS && names[kind].kind ? &names[kind] : NULL;
}

static bool is_word(const char *text, size_t bytes, const char *word)
{
	return strlen(word) == bytes && !memcmp(text, word, bytes);
}

/* What a name stands for; 0: it is none. */
static uint32_t find(const char *text, size_t bytes)
{
	uint32_t found = 0;

	for (unsigned kind = 0; kind < TRACE_KINDS; kind++)
		if (names[kind].kind && (is_word(text, bytes, names[kind].kind) ||
					 is_word(text, bytes, names[kind].group)))
			found |= TRACE_BIT(kind);
	return found;
}

bool trace_parse(const char *text, uint32_t *ret_wanted)
{
	*ret_wanted = 0;
	for (;;) {
		const size_t bytes = strcspn(text, ",");
		const uint32_t found = find(text, bytes);

		if (!found)
			return false;
		*ret_wanted |= found;
		if (!text[bytes])
			return true;
		text += bytes + 1;
	}
}

/* ---- producers ---- */

void trace_init(struct trace *trace, struct trace_memory *memory)
{
	*trace = (struct trace){ .memory = memory };
	pthread_mutex_init(&trace->lock, NULL);
}

void trace_want(struct trace *trace, uint32_t wanted)
{
	__atomic_store_n(&trace->wanted, trace->memory ? wanted : 0, __ATOMIC_RELAXED);
}

void check_trace(const struct trace *trace)
{
	const struct trace_memory *memory = trace->memory;

	assert(memory || !trace->wanted);
	if (!memory)
		return;
	assert(trace->head - __atomic_load_n(&memory->tail, __ATOMIC_ACQUIRE) <= TRACE_RECORDS);
	assert(memory->head == trace->head && memory->dropped == trace->dropped);
}

void trace_put(struct trace *trace, const struct trace_record *record)
{
	struct trace_memory *memory = trace->memory;

	assert(memory && trace_kind(record->kind));
	pthread_mutex_lock(&trace->lock);
	if (trace->head - __atomic_load_n(&memory->tail, __ATOMIC_ACQUIRE) >= TRACE_RECORDS) {
		__atomic_store_n(&memory->dropped, ++trace->dropped, __ATOMIC_RELAXED);
	} else {
		memory->record[trace->head % TRACE_RECORDS] = *record;
		__atomic_store_n(&memory->head, ++trace->head, __ATOMIC_RELEASE);
	}
	CHECK(check_trace(trace));
	pthread_mutex_unlock(&trace->lock);
}

/* ---- the consumer ---- */

static uint64_t dropped_of(const struct trace_memory *memory)
{
	return __atomic_load_n(&memory->dropped, __ATOMIC_RELAXED);
}

void trace_begin(struct trace_reader *reader, struct trace_memory *memory)
{
	*reader = (struct trace_reader){ .memory = memory,
					 .at = __atomic_load_n(&memory->head, __ATOMIC_ACQUIRE),
					 .dropped_before = dropped_of(memory) };
	__atomic_store_n(&memory->tail, reader->at, __ATOMIC_RELEASE);
}

static bool is_sound(const struct trace_record *record)
{
	return trace_kind(record->kind) && (record->processor < REGISTERS_MOST ||
					    record->processor == TRACE_NO_PROCESSOR);
}

int trace_get(struct trace_reader *reader, uint32_t wanted, struct trace_record *ret,
	      unsigned most, unsigned *ret_count)
{
	const struct trace_memory *memory = reader->memory;
	uint32_t used = __atomic_load_n(&memory->head, __ATOMIC_ACQUIRE) - reader->at;

	*ret_count = 0;
	if (used > TRACE_RECORDS)
		return -EBADMSG;
	used = used < most ? used : most;
	for (uint32_t n = 0; n < used; n++) {
		struct trace_record record;

		memcpy(&record, &memory->record[(reader->at + n) % TRACE_RECORDS], sizeof(record));
		__asm__ volatile("" : : : "memory"); /* it is looked at here only */
		if (!is_sound(&record))
			return -EBADMSG;
		if (wanted & TRACE_BIT(record.kind))
			ret[(*ret_count)++] = record;
	}
	reader->at += used;
	__atomic_store_n(&reader->memory->tail, reader->at, __ATOMIC_RELEASE);
	return (int)used;
}

uint64_t trace_dropped(const struct trace_reader *reader)
{
	return dropped_of(reader->memory) - reader->dropped_before;
}
