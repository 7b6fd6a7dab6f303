/* An address space's tables, journal and filters: see space.h. */
#include "space.h"

#include <assert.h>
#include <sys/mman.h>

#include "mmu.h"

enum { JOURNAL_VIEW_BITS = 2, JOURNAL_VIEW_MASK = 3, LARGE_SHIFT = 21, PAGE_SHIFT = 12 };

enum {
	TABLES = 2 * VIEWS,
	CHUNKS = (int)(TABLE_BYTES / TABLE_CHUNK_BYTES),
	REGION_SHIFT = 30,
	CHUNK_BITS = 24
};
enum { ENTRIES_PER_CHUNK = TABLE_CHUNK_BYTES / sizeof(uint64_t), OPEN_WORDS = CHUNKS / 64 };

/*
 * A table as it begins: zeros that can be read and not written, so that looking up costs no memory
 * of this process. What the host's own page tables had of it goes with the old mapping.
 */
static bool map_table(void **memory)
{
	int fixed = *memory ? MAP_FIXED : 0;
	void *at = mmap(*memory, TABLE_RESERVED_BYTES, PROT_READ,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);

	if (at == MAP_FAILED)
		return false;
	*memory = at;
	madvise(at, TABLE_RESERVED_BYTES, MADV_NOHUGEPAGE);
	return true;
}

/*
 * The bases of all tables end with TABLE_BIAS: one register is table base and BEXTR control at
 * once.
 */
static uint64_t table_base(const void *memory)
{
	return (((uint64_t)memory + 0xffff) & ~0xffffull) + TABLE_BIAS;
}

struct address_space *space_create(const struct soft_engine *e)
{
	struct address_space *space = soft_reserve(sizeof(*space));

	if (!space)
		return NULL;
	space->ram = e->ram;
	space->poison = e->poison;
	space->opened_most = e->budget.table_chunks;
	space->regions_most = e->budget.table_regions;
	space->opened = soft_reserve(space->opened_most * sizeof(*space->opened));
	if (!space->opened)
		goto no_memory;
	for (unsigned n = 0; n < TABLES; n++) {
		space->open[n] = soft_reserve(OPEN_WORDS * sizeof(uint64_t));
		if (!space->open[n] || !map_table(&space->memory[n]))
			goto no_memory;
		*(n < VIEWS ? &space->read[n] : &space->write[n - VIEWS]) =
			table_base(space->memory[n]);
	}
	return space;
no_memory:
	space_destroy(space);
	return NULL;
}

void space_destroy(struct address_space *space)
{
	if (!space)
		return;
	for (unsigned n = 0; n < TABLES; n++) {
		if (space->memory[n])
			munmap(space->memory[n], TABLE_RESERVED_BYTES);
		if (space->open[n])
			munmap(space->open[n], OPEN_WORDS * sizeof(uint64_t));
	}
	if (space->opened)
		munmap(space->opened, space->opened_most * sizeof(*space->opened));
	munmap(space, sizeof(*space));
}

static uint64_t index_of(uint64_t gva) { return gva << 16 >> 28; }

static uint64_t *entry_at(uint64_t table, uint64_t index)
{
	return (uint64_t *)(table - TABLE_BIAS + index * 8);
}

/* An element of the journal. */
static uint64_t pack(uint64_t gva, unsigned view)
{
	return index_of(gva) << JOURNAL_VIEW_BITS | view;
}

static unsigned packed_view(uint64_t packed) { return packed & JOURNAL_VIEW_MASK; }

static uint64_t *packed_entry(const uint64_t tables[VIEWS], uint64_t packed)
{
	return entry_at(tables[packed_view(packed)], packed >> JOURNAL_VIEW_BITS);
}

/* The canonical address of an element's page. */
static uint64_t packed_gva(uint64_t packed)
{
	return (uint64_t)((int64_t)(packed >> JOURNAL_VIEW_BITS << 28) >> 16);
}

/* Where an entry that is not 0 leads for this address. */
static const uint8_t *entry_hva(const struct address_space *space, uint64_t entry, uint64_t gva)
{
	return (const uint8_t *)((entry ^ space->poison) + gva);
}

static uint64_t entry_frame(const struct address_space *space, uint64_t entry, uint64_t gva)
{
	return (uint64_t)(entry_hva(space, entry, gva) - space->ram) / PAGE_BYTES;
}

static bool is_open(const struct address_space *space, unsigned n, uint64_t index)
{
	uint32_t chunk = (uint32_t)(index / ENTRIES_PER_CHUNK);

	return space->open[n][chunk / 64] >> chunk % 64 & 1;
}

/* Where nothing was ever cached nothing is even looked at: that would cost, too. */
static void clear_entry(struct address_space *space, uint64_t packed)
{
	if (!is_open(space, packed_view(packed), packed >> JOURNAL_VIEW_BITS))
		return;
	*packed_entry(space->read, packed) = 0;
	*packed_entry(space->write, packed) = 0;
}

static void flush_journal(struct address_space *space, int global)
{
	for (uint32_t n = 0; n < space->journal_used[global]; n++)
		clear_entry(space, space->journal[global][n]);
	space->journal_used[global] = 0;
}

void space_flush(struct address_space *space, bool global)
{
	flush_journal(space, 0);
	if (!global)
		return;
	flush_journal(space, 1);
	memset(space->large_filter, 0, sizeof(space->large_filter));
}

static unsigned filter_bit(uint64_t number)
{
	return (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 52);
}

static void filter_add(uint64_t filter[FILTER_WORDS], uint64_t number)
{
	unsigned bit = filter_bit(number);

	filter[bit >> 6] |= 1ull << (bit & 63);
}

static bool filter_has(const uint64_t filter[FILTER_WORDS], uint64_t number)
{
	unsigned bit = filter_bit(number);

	return filter[bit >> 6] >> (bit & 63) & 1;
}

bool space_flush_page(struct address_space *space, uint64_t gva)
{
	for (unsigned view = 0; view < VIEWS; view++)
		clear_entry(space, pack(gva, view));
	return !filter_has(space->large_filter, gva >> LARGE_SHIFT);
}

void space_revoke_writes(struct address_space *space, uint64_t frame)
{
	for (int global = 0; global < 2; global++)
		for (uint32_t n = 0; n < space->journal_used[global]; n++) {
			uint64_t packed = space->journal[global][n];
			uint64_t *entry = packed_entry(space->write, packed);

			if (*entry && entry_frame(space, *entry, packed_gva(packed)) == frame)
				*entry = 0;
		}
}

/* Everything that the tables cost is given back, and everything that was cached is forgotten. */
static void space_begin_anew(struct address_space *space)
{
	for (unsigned n = 0; n < TABLES; n++) {
		bool mapped = map_table(&space->memory[n]);

		assert(mapped); /* in place of itself */
	}
	while (space->opened_count) {
		uint32_t opened = space->opened[--space->opened_count];
		uint32_t chunk = opened & ((1u << CHUNK_BITS) - 1);

		space->open[opened >> CHUNK_BITS][chunk / 64] = 0;
	}
	memset(space->regions, 0, sizeof(space->regions));
	memset(space->large_filter, 0, sizeof(space->large_filter));
	space->region_count = 0;
	space->journal_used[0] = space->journal_used[1] = 0;
	space->times_anew++;
}

/*
 * Entry `index` of table n can be written from now on. False: not within the budget, or not on this
 * host.
 */
static bool space_open_chunk(struct address_space *space, unsigned n, uint64_t index)
{
	uint32_t chunk = (uint32_t)(index / ENTRIES_PER_CHUNK);
	uint8_t *at = (uint8_t *)(table_base(space->memory[n]) - TABLE_BIAS) +
		      (uint64_t)chunk * TABLE_CHUNK_BYTES;

	if (is_open(space, n, index))
		return true;
	if (space->opened_count == space->opened_most)
		return false;
	if (mmap(at, TABLE_CHUNK_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != at)
		return false;
	madvise(at, TABLE_CHUNK_BYTES, MADV_NOHUGEPAGE);
	space->open[n][chunk / 64] |= 1ull << chunk % 64;
	space->opened[space->opened_count++] = n << CHUNK_BITS | chunk;
	return true;
}

static bool space_open_pair(struct address_space *space, unsigned view, uint64_t index)
{
	/* the read table last: it says that both are open */
	return space_open_chunk(space, VIEWS + view, index) && space_open_chunk(space, view, index);
}

void space_note_miss(struct address_space *space, uint64_t gva)
{
	uint64_t region = gva >> REGION_SHIFT & (TABLE_REGIONS - 1);
	uint64_t *word = &space->regions[region / 64];
	uint64_t bit = 1ull << region % 64;

	if (*word & bit)
		return;
	if (space->region_count == space->regions_most)
		space_begin_anew(space);
	*word |= bit;
	space->region_count++;
}

void space_insert(struct address_space *space, unsigned view, uint64_t gva, uint8_t *page,
		  bool writable, unsigned rights)
{
	bool global = rights & RIGHT_GLOBAL;
	uint64_t base = gva & ~(uint64_t)(PAGE_BYTES - 1);
	uint64_t value = ((uint64_t)page - base) ^ space->poison;

	assert(view < VIEWS);
	/* docs/speculation.md: nothing there to forward */
	assert(view != VIEW_USER || rights & RIGHT_USER);
	if (!space_open_pair(space, view, index_of(gva))) {
		space_begin_anew(space);
		if (!space_open_pair(space, view, index_of(gva)))
			return; /* not cached: every access comes to soft_memory() */
	}
	if (space->journal_used[global] == JOURNAL_ENTRIES)
		flush_journal(space, global);
	space->journal[global][space->journal_used[global]++] = pack(gva, view);
	if (rights & RIGHT_LARGE)
		filter_add(space->large_filter, gva >> LARGE_SHIFT);
	*entry_at(space->read[view], index_of(gva)) = value;
	if (writable)
		*entry_at(space->write[view], index_of(gva)) = value;
}

/* User and kernel jumps are dropped apart, by a new epoch each. */
void space_flush_jumps(struct address_space *space, bool global)
{
	bool kernel = global || space->kernel_jumps_local;

	space->epoch[1]++;
	if (!kernel)
		return;
	space->epoch[0]++;
	memset(space->code_filter, 0, sizeof(space->code_filter));
	space->kernel_jumps_local = false;
}

void space_note_jump(struct address_space *space, uint64_t linear, bool is_local_kernel)
{
	filter_add(space->code_filter, linear >> PAGE_SHIFT);
	space->kernel_jumps_local |= is_local_kernel;
}

bool space_may_have_jump(const struct address_space *space, uint64_t linear)
{
	return filter_has(space->code_filter, linear >> PAGE_SHIFT);
}

static void check_entry(const struct address_space *space, const struct soft_engine *e,
			uint64_t packed)
{
	uint64_t read = *packed_entry(space->read, packed);
	uint64_t write = *packed_entry(space->write, packed);
	uint64_t gva = packed_gva(packed);
	uint64_t footprint = guest_memory_footprint_bytes(e->memory->ram_bytes);
	uint64_t offset;

	assert(packed_view(packed) < VIEWS);
	if (!read) {
		assert(!write);
		return;
	}
	offset = (uint64_t)(entry_hva(space, read, gva) - space->ram);
	assert(!(offset % PAGE_BYTES) && offset < footprint);
	if (write) {
		uint8_t flags = e->frame_flags[offset / PAGE_BYTES];

		assert(write == read);
		assert(flags & FRAME_WRITTEN && !(flags & FRAME_CODE));
	}
}

void check_space(const struct address_space *space, const struct soft_engine *e)
{
	for (int global = 0; global < 2; global++) {
		assert(space->journal_used[global] <= JOURNAL_ENTRIES);
		for (uint32_t n = 0; n < space->journal_used[global]; n++)
			check_entry(space, e, space->journal[global][n]);
	}
}
