/*
 * The counters of the code cache, with their names. made_again: by what became of the block of the
 * same place and mode (block_history.c); one that lives is a block at another address.
 */
#include <stdio.h>

#include "code.h"

#define COUNTER(name, field) { name, offsetof(struct code_counts, field) }

static const struct { const char *name; size_t offset; } counters[] = {
	COUNTER("blocks-never-seen", made_first),
	COUNTER("blocks-at-another-address", made_again[END_NONE]),
	COUNTER("blocks-after-eviction", made_again[END_EVICTED]),
	COUNTER("blocks-after-a-write", made_again[END_WRITTEN]),
	COUNTER("cold-parts", parts),
	COUNTER("traces", traces),
	COUNTER("regions-evicted", evictions),
	COUNTER("regions-kept", regions_kept),
	COUNTER("waits-for-room", waits),
	COUNTER("alone-to-protect-code", protected_alone),
	COUNTER("alone-to-access", accesses_alone),
	COUNTER("blocks-evicted", blocks_evicted),
	COUNTER("times-given-back", trims),
	COUNTER("times-regretted", regrets),
	COUNTER("regions-given-back", regions_given_back),
};

size_t soft_code_statistics(const struct soft_engine *engine, char *text, size_t bytes)
{
	size_t used = (size_t)snprintf(text, bytes, "code: ");

	for (size_t n = 0; n < sizeof(counters) / sizeof(*counters) && used < bytes; n++) {
		const uint64_t *value =
			(const uint64_t *)((const uint8_t *)&engine->counts + counters[n].offset);

		used += (size_t)snprintf(text + used, bytes - used, "%s %lu, ", counters[n].name,
					 *value);
	}
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "KiB %zu\n",
					 soft_code_used(engine) >> 10);
	return used < bytes ? used : bytes - 1;
}

size_t soft_jump_statistics(const struct soft_cpu *cpu, char *text, size_t bytes)
{
	size_t used = (size_t)snprintf(text, bytes,
				       "jumps: jumps-first %lu, jumps-stale %lu, "
				       "jumps-displaced %lu, jumps-recovered %lu, "
				       "pages-recalled %lu, dispatches %lu, "
				       "links-made %lu, left-to-c %lu\n",
				       cpu->jumps.first, cpu->jumps.stale, cpu->jumps.displaced,
				       cpu->jumps.recovered, cpu->jumps.recalled, cpu->misses,
				       cpu->chains, cpu->systems);

	return used < bytes ? used : bytes - 1;
}
