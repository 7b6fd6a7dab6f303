/* The counters of a processor's translations, with their names (docs/engine.md says what of). */
#include <stdio.h>

#include "common.h"

#define COUNTER(name, field) { name, offsetof(struct mmu_counters, field) }

static const struct { const char *name; size_t offset; } counters[] = {
	COUNTER("switches-to-kept-spaces", switches_known),
	COUNTER("switches-to-new-spaces", switches_new),
	COUNTER("spaces-reused", spaces_reused),
	COUNTER("spaces-given-back", spaces_given_back),
	COUNTER("syncs", syncs),
	COUNTER("syncs-that-looked", syncs_looked),
	COUNTER("shadow-pages-kept", shadows_kept),
	COUNTER("shadow-pages-dropped", shadows_dropped),
	COUNTER("pages-flushed", pages_flushed),
	COUNTER("everything-forgotten", forgotten),
	COUNTER("page-tables-opened", tables_opened),
	COUNTER("page-tables-closed", tables_closed),
	COUNTER("writers-looked-for", writers_looked_for),
	COUNTER("filled-ahead", filled_ahead),
	COUNTER("common-spaces-joined", spaces_joined),
	COUNTER("entries-too-late", late_entries),
	COUNTER("shootdowns-taken", shootdowns_taken),
};

static uint64_t counter(const struct mmu_counters *count, size_t offset)
{
	return *(const uint64_t *)((const uint8_t *)count + offset);
}

size_t soft_mmu_statistics(const struct soft_cpu *cpu, char *text, size_t bytes)
{
	const struct commons *commons = cpu == cpu->engine->cpus[0] ? cpu->engine->commons : NULL;
	size_t used = (size_t)snprintf(text, bytes, "mmu: ");

	for (size_t n = 0; n < sizeof(counters) / sizeof(*counters) && used < bytes; n++) {
		uint64_t value = counter(&cpu->count, counters[n].offset);

		/* the first processor tells those of the common spaces with its own */
		value += commons ? counter(&commons->count, counters[n].offset) : 0;
		used += (size_t)snprintf(text + used, bytes - used, "%s%s %lu", n ? ", " : "",
					 counters[n].name, value);
	}
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "\n");
	return used < bytes ? used : bytes - 1;
}
