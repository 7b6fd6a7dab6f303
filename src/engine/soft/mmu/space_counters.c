/* The counters of a processor's translations, with their names (docs/engine.md says what of). */
#include <stdio.h>

#include "mmu.h"

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
};

size_t soft_mmu_statistics(const struct soft_cpu *cpu, char *text, size_t bytes)
{
	size_t used = (size_t)snprintf(text, bytes, "mmu: ");

	for (size_t n = 0; n < sizeof(counters) / sizeof(*counters) && used < bytes; n++) {
		const uint64_t *value =
			(const uint64_t *)((const uint8_t *)&cpu->count + counters[n].offset);

		used += (size_t)snprintf(text + used, bytes - used, "%s%s %lu", n ? ", " : "",
					 counters[n].name, *value);
	}
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "\n");
	return used < bytes ? used : bytes - 1;
}
