/*
 * See budget.h. The figures were measured over boots and compilers.
 */
#include "budget.h"

#include <assert.h>

#include "engine/engine.h"
#include "soft_internal.h"
#include "engine/soft/code/code.h"
#include "engine/soft/mmu/space.h"

enum { FIXED_BYTES = 24 << 20, LEAST_CHUNKS = 64 };
/* what is left is for what follows the code: of each byte of it so many bytes */
enum { CODE_SHARE = 46, TABLE_SHARE = 18, WHOLE = 100 };
enum {
	CODE_BYTES_PER_BLOCK = 256,
	CODE_BYTES_PER_MAP = 20,
	CODE_BYTES_PER_KEPT = 4,
	CODE_BYTES_PER_LINK = 256
};
enum { VIEW_TABLES = 2 * VIEWS, ADDRESSES_TIB = 96 };

struct soft_budget budget_divide(const struct engine_options *options)
{
	uint64_t rest = options->overhead_bytes - FIXED_BYTES;
	uint64_t tables = rest * TABLE_SHARE / WHOLE / options->cpus;
	struct soft_budget budget;

	assert(options->overhead_bytes >= ENGINE_LEAST_OVERHEAD_BYTES && options->cpus);
	budget.region_bytes = rest * CODE_SHARE / WHOLE / CODE_REGIONS / PAGE_BYTES * PAGE_BYTES;
	budget.code_bytes = CODE_THUNK_BYTES + CODE_REGIONS * budget.region_bytes;
	budget.region_blocks = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_BLOCK);
	budget.region_maps = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_MAP);
	budget.region_kept_bytes = budget.region_bytes / CODE_BYTES_PER_KEPT;
	budget.region_links = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_LINK);
	budget.table_chunks = (uint32_t)(tables / TABLE_CHUNK_BYTES);
	if (budget.table_chunks < LEAST_CHUNKS)
		budget.table_chunks = LEAST_CHUNKS;
	/* looked up and not cached: a page of the host's page tables in each view's table */
	budget.table_regions = (uint32_t)(tables / (VIEW_TABLES * PAGE_BYTES));
	/* each has tables of 2 TiB, the kernel's of 1, and the host 128 TiB of addresses */
	budget.spaces = (ADDRESSES_TIB / options->cpus - 1) / 2;
	if (budget.spaces > SPACES_MOST)
		budget.spaces = SPACES_MOST;
	if (!budget.spaces || options->without & ENGINE_WITHOUT_SPACES)
		budget.spaces = 1;
	return budget;
}
