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
/* each space has tables of 2 TiB, a processor's kernel of 1, and the host 128 TiB of addresses */
enum { SPACE_TIB = 2, OWN_TIB = 3 };

/* More than processors, so that none waits for one; or none. */
static uint32_t common_spaces(const struct engine_options *options)
{
	uint32_t left = ADDRESSES_TIB - OWN_TIB * (options->cpus < 32 ? options->cpus : 32);
	uint32_t spaces = left / SPACE_TIB < SPACES_COMMON ? left / SPACE_TIB : SPACES_COMMON;

	if (options->cpus < 2 || spaces <= options->cpus ||
	    options->without & (ENGINE_WITHOUT_SPACES | ENGINE_WITHOUT_SHARING))
		return 0;
	return spaces;
}

/* looked up and not cached: a page of the host's page tables in each view's table */
static uint32_t regions_of(uint64_t bytes)
{
	return (uint32_t)(bytes / (VIEW_TABLES * PAGE_BYTES));
}

static uint32_t chunks_of(uint64_t bytes)
{
	uint32_t chunks = (uint32_t)(bytes / (TABLE_CHUNK_BYTES + PAGE_BYTES));

	return chunks < LEAST_CHUNKS ? LEAST_CHUNKS : chunks;
}

struct soft_budget budget_divide(const struct engine_options *options)
{
	uint64_t rest = options->overhead_bytes - FIXED_BYTES;
	uint64_t tables = rest * TABLE_SHARE / WHOLE;
	struct soft_budget budget;

	assert(options->overhead_bytes >= ENGINE_LEAST_OVERHEAD_BYTES && options->cpus);
	budget.region_bytes = rest * CODE_SHARE / WHOLE / CODE_REGIONS / PAGE_BYTES * PAGE_BYTES;
	budget.code_bytes = CODE_THUNK_BYTES + CODE_REGIONS * budget.region_bytes;
	budget.region_blocks = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_BLOCK);
	budget.region_maps = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_MAP);
	budget.region_kept_bytes = budget.region_bytes / CODE_BYTES_PER_KEPT;
	budget.region_links = (uint32_t)(budget.region_bytes / CODE_BYTES_PER_LINK);
	budget.processors = options->cpus;
	budget.common_spaces = common_spaces(options);
	budget.common_chunks = budget.common_regions = 0;
	if (budget.common_spaces) {
		tables /= 2;
		budget.common_chunks = chunks_of(tables);
		budget.common_regions = regions_of(tables);
	}
	budget.table_chunks = chunks_of(tables / options->cpus);
	budget.table_regions = regions_of(tables / options->cpus);
	budget.spaces = (ADDRESSES_TIB / options->cpus - 1) / SPACE_TIB;
	if (budget.spaces > SPACES_MOST)
		budget.spaces = SPACES_MOST;
	if (!budget.spaces || options->without & ENGINE_WITHOUT_SPACES)
		budget.spaces = 1;
	return budget;
}
